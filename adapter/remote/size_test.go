package remote

import (
	"fmt"
	"math"
	"net/http"
	"testing"
	"time"
)

// sizes are what a listing may say about an object, and whether that is possible.
var sizes = map[string]bool{
	"-1": false, "0": true, fmt.Sprint(largestObject): true, fmt.Sprint(largestObject + 1): false,
	fmt.Sprint(int64(math.MaxInt64)): false, "9223372036854775808": false, "": false, "x": false,
}

// A size that no object has is refused before anything is made for it.
func TestSizesThatNoObjectHasAreRefused(t *testing.T) {
	for text, fine := range sizes {
		pages := map[string]string{
			"s3": `<ListBucketResult><Contents><Key>m/a.bin</Key><ETag>"1"</ETag><Size>` + text +
				`</Size></Contents></ListBucketResult>`,
			"gs": `{"kind": "storage#objects", "items": [{"name": "m/a.bin", "size": "` + text +
				`", "generation": "1"}]}`,
			"az": "<EnumerationResults><Blobs>" + blob("m/a.bin", text, "0x1", "") +
				"</Blobs></EnumerationResults>",
		}
		for scheme, g := range pagers {
			if text == "" && scheme != "gs" {
				continue // XML takes it for 0, which every read compares
			}
			g.write = func(page) string { return pages[scheme] }
			b := g.serve(t, func(string) page { return page{} })
			s := newStore(b, newClient(Options{}), Options{})
			f, err := s.Open(t.Context(), "a.bin")
			if (err == nil) != fine {
				t.Errorf("%s, %q bytes: %v", scheme, text, err)
			}
			if err == nil {
				_ = f.Close()
			}
			_ = s.Close()
		}
		if text == "0" || text == "-1" || text == "" || text == "x" {
			continue
		}
		h, _ := oddServer(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Content-Range", "bytes 0-0/"+text)
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, "x")
		})
		o, err := h.pinOnce(t.Context(), "a.bin")
		if err != nil || (o.refused == nil) != fine {
			t.Errorf("https, %q bytes: %+v, %v", text, o, err)
		}
	}
}

// Opening a large object takes no memory for its blocks.
func TestOpeningALargeObjectIsCheap(t *testing.T) {
	f := newFetcher(nil, Options{Patience: time.Second})
	defer f.close()
	o := &object{name: "x.bin", size: largestObject}
	n := testing.AllocsPerRun(10, func() { newTable(f, o).close() })
	before := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			newTable(f, o).close()
		}
	})
	if n > 20 || before.AllocedBytesPerOp() > 4<<10 {
		t.Errorf("%v allocations, %d bytes", n, before.AllocedBytesPerOp())
	}
}
