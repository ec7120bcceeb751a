package remote

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// A file that is fetched whole has the bytes that its publisher tells the hash of, even if the
// answer has the ETag and the size of the right one.
func TestAWholeFileIsComparedWithItsHash(t *testing.T) {
	for _, cut := range []int64{0, 30_000} { // of each connection
		testHash(t, cut)
	}
}

func testHash(t *testing.T, cut int64) {
	for wrong, fine := range map[int]bool{0: true, 2: true, 1000: false} {
		t.Run(fmt.Sprint(wrong, " wrong answers, cut at ", cut), func(t *testing.T) {
			var s *served
			s = serve(t, 100_000, Options{Patience: 100 * time.Millisecond}, func(i int,
				w http.ResponseWriter, r *http.Request) bool {
				body := bytes.Clone(s.data)
				if i < wrong {
					body[7_777] ^= 1
				}
				if cut > 0 {
					w = &cutWriter{w, cut}
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
				return true
			})
			s.object.name = "tokenizer.json"
			s.object.sha256 = fmt.Sprintf("%x", sha256.Sum256(s.data))
			p := make([]byte, 1000)
			_, err := s.file().ReadAt(t.Context(), p, 77_000)
			switch {
			case fine && (err != nil || !bytes.Equal(p, s.data[77_000:78_000])):
				t.Errorf("wrong bytes, %v", err)
			case !fine && !errors.Is(err, errAnswer):
				t.Errorf("%v", err)
			}
			if err == nil && cut == 0 && len(s.ranges()) != wrong+1 {
				t.Errorf("requests: %v", s.ranges())
			}
		})
	}
}

// cutWriter closes the connection after some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(int64(len(p)), c.left)])
	if c.left -= int64(n); err == nil && n < len(p) {
		_ = http.NewResponseController(c.ResponseWriter).Flush() // the client may have gone
		panic(http.ErrAbortHandler)
	}
	return n, err
}
