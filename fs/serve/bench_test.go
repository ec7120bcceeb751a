package serve

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// BenchmarkClients compares a handler with a plain file server of the same files. Both are read by
// the same clients in turn, and everything was read before. The metric "of-plain" is the speed of
// the handler by that of the plain server.
func BenchmarkClients(b *testing.B) {
	s := serveCheckpoint(b, Options{}, synth.Options{
		Layers: 2, Experts: 64, Hidden: 1024, ExpertIntermediate: 512, Shards: 2,
	})
	for _, layout := range layouts {
		dir := b.TempDir()
		var names []string
		for name, data := range s.files(layout) {
			if strings.HasSuffix(name, ".safetensors") {
				names = append(names, name)
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					b.Fatal(err)
				}
			}
		}
		plain := httptest.NewServer(http.FileServer(http.Dir(dir)))
		b.Cleanup(plain.Close)
		ours := s.url + "/tiny/" + layout + "/resolve/main/"
		for _, clients := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", layout, clients), func(b *testing.B) {
				var took [2]time.Duration
				var bytes int64
				for b.Loop() {
					for i, base := range []string{ours, plain.URL + "/"} {
						begun := time.Now()
						bytes = download(b, base, names, clients)
						took[i] += time.Since(begun)
					}
				}
				b.SetBytes(2 * bytes)
				b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "of-plain")
			})
		}
	}
}

// download has each of some clients read all files, and returns how many bytes they got.
func download(b *testing.B, base string, names []string, clients int) (bytes int64) {
	var g errgroup.Group
	got := make([]int64, clients)
	for i := range clients {
		g.Go(func() error {
			for _, name := range names {
				answer, err := http.Get(base + name)
				if err != nil {
					return err
				}
				n, err := io.Copy(io.Discard, answer.Body)
				if err != nil || answer.StatusCode != http.StatusOK {
					return fmt.Errorf("%s: %s, %w", base+name, answer.Status, err)
				}
				answer.Body.Close()
				got[i] += n
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	for _, n := range got {
		bytes += n
	}
	return bytes
}
