package serve

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/size"
)

// Eight clients read random ranges of all files at once, 10^9 bytes together, or 10^11 with the
// full counts. Each byte is compared with the tree.
func TestManyBytesAreThoseOfTheTree(t *testing.T) {
	s := serveSynth(t, Options{})
	files := map[string][]byte{}
	for _, layout := range layouts {
		for name, data := range s.files(layout) {
			files[s.url+"/tiny/"+layout+"/resolve/main/"+name] = data
		}
	}
	var left atomic.Int64
	left.Store(int64(size.Count(1e9, 1e11)))
	var clients sync.WaitGroup
	for i := range uint64(8) {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(size.Seeds(t)[0], i))
			urls := slices.Sorted(maps.Keys(files))
			for left.Load() > 0 && !t.Failed() {
				url := urls[r.IntN(len(urls))]
				n, err := readRange(url, files[url], r)
				if err != nil {
					t.Errorf("%s: %v", url, err)
				}
				left.Add(-n)
			}
		})
	}
	clients.Wait()
}

// readRange reads a random range and compares it.
func readRange(url string, want []byte, r *rand.Rand) (int64, error) {
	from := r.IntN(len(want))
	to := from + 1 + r.IntN(len(want)-from)
	q, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	q.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err == nil && !bytes.Equal(got, want[from:to]) {
		err = fmt.Errorf("[%d, %d) has other bytes", from, to)
	}
	return int64(len(got)), err
}
