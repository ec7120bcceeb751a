package fs

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"testing"
)

// qwen returns the files of a Qwen3-30B-A3B of some layers in layout hf, without their contents. A
// last file has the embeddings.
func qwen(layers int) (files []*file) {
	const hidden, inner, experts, vocabulary = 2048, 768, 128, 151936
	for l := range layers {
		p := fmt.Sprintf("model.layers.%d.", l)
		sizes := map[string]int64{
			p + "self_attn.q_proj.weight": 2 * 4096 * hidden,
			p + "self_attn.o_proj.weight": 2 * 4096 * hidden,
			p + "self_attn.k_proj.weight": 2 * 512 * hidden, p + "self_attn.v_proj.weight": 2 * 512 * hidden,
			p + "self_attn.q_norm.weight": 256, p + "self_attn.k_norm.weight": 256,
			p + "input_layernorm.weight": 2 * hidden, p + "post_attention_layernorm.weight": 2 * hidden,
			p + "mlp.gate.weight": 2 * experts * hidden,
		}
		for e := range experts {
			for _, name := range []string{"gate_proj", "up_proj", "down_proj"} {
				sizes[fmt.Sprintf("%smlp.experts.%d.%s.weight", p, e, name)] = 2 * hidden * inner
			}
		}
		files = append(files, blankFile(sizes))
	}
	return append(files, blankFile(map[string]int64{
		"model.embed_tokens.weight": 2 * vocabulary * hidden, "lm_head.weight": 2 * vocabulary * hidden,
		"model.norm.weight": 2 * hidden,
	}))
}

// blankFile makes a file with tensors in the order of their keys, behind a header of 48 KiB.
func blankFile(sizes map[string]int64) *file {
	f := &file{segments: []*segment{{}}, ends: []int64{48 << 10}}
	var keys []string
	for k := range sizes {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		f.segments = append(f.segments, &segment{key: k})
		f.ends = append(f.ends, f.Size()+sizes[k])
	}
	return f
}

// trace yields the READs of a recorded loader: file, offset and length. See testdata/README.md.
func trace(t *testing.T, name string, yield func(file int, off, n int64)) {
	t.Helper()
	h, err := os.Open("../testdata/traces/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for lines := bufio.NewScanner(h); lines.Scan(); {
		var file int
		var off, n, count int64
		if _, err := fmt.Sscan(lines.Text(), &file, &off, &n, &count); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		for ; count > 0; count-- {
			yield(file, off, n)
			off += n
		}
	}
}

// The ends of a layer are in the same order by files and by keys: experts 3 to 9, and all that is
// not an expert. So loaders that go through files follow both there.
func TestFrontsTellLoadersByTheirOrder(t *testing.T) {
	files := qwen(3)
	for _, c := range []struct {
		trace       string
		least, most float64 // of the READs after the first step, how many follow the order of keys
	}{
		{"transformers", 0.95, 1},
		{"load_file", 0, 0.2},
		{"vllm", 0, 0.2},
		{"pread16", 0, 0.05},
		{"random", 0, 0.05},
	} {
		front := newFront(inKeys(files), nil)
		var read, reads, follows float64
		trace(t, c.trace, func(i int, off, n int64) {
			_, ok := front.read(files[i], off, n)
			if read += float64(n); read > 2*frontStep {
				reads++
				if ok {
					follows++
				}
			}
		})
		if got := follows / max(reads, 1); got < c.least || got > c.most || reads == 0 {
			t.Errorf("%s: %.3f of %v READs follow the order of keys; want %v to %v",
				c.trace, got, reads, c.least, c.most)
		}
	}
}

// The keys of a large view take a while to sort, and the kernel drops pages. A loader is found all
// the same: by a front that is made while it reads, and when it reads a second time.
func TestFrontsBeginWhereAPassIs(t *testing.T) {
	files := qwen(3)
	s := inKeys(files)
	v := &foreview{files: files, given: map[*file]given{}}
	for pass := range 2 {
		clear(v.given) // the kernel has dropped everything
		var front *front
		var read int64
		var reads, follows int
		trace(t, "transformers", func(i int, off, n int64) {
			if read += n; read < 100<<20 { // the keys are not sorted yet
				v.of(files[i]).set(pages(off, n))
				return
			}
			if front == nil {
				front = newFront(s, v.given)
			}
			if _, ok := front.read(files[i], off, n); ok {
				follows++
			}
			reads++
		})
		if got := float64(follows) / float64(reads); got < 0.9 {
			t.Errorf("pass %d: %.3f of %d READs follow the order of keys", pass, got, reads)
		}
	}
}
