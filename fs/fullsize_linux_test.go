package fs_test

import (
	"bytes"
	"context"
	"io"
	iofs "io/fs"
	"iter"
	"os"
	"path"
	"strings"
	"syscall"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// The checkpoint of this file is DeepSeek-V3 in its full size, sparse: 91,991
// tensors in 163 shards, 689 GB apparent. Its few elements that are not zero follow from
// their keys alone (see synth.Seed), so every virtual offset has a known value.

// fullSize writes the checkpoint and lays out four views of it.
func fullSize(tb testing.TB) (*synth.Full, *fs.FS) {
	tb.Helper()
	dir := tb.TempDir()
	full, err := synth.WriteFull(dir)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := adapter.Open(context.Background(), dir, adapter.OpenOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return full, fullSizeViews(tb, c)
}

func fullSizeViews(tb testing.TB, c *adapter.Checkpoint) *fs.FS {
	tb.Helper()
	var views []fs.View
	for dir, dtype := range map[string]safetensors.DType{"": safetensors.BF16,
		"-f32": safetensors.F32} {
		for _, layout := range []string{"native", "hf"} {
			plan, err := adapter.NewPlan(c, adapter.Options{Layout: layout, DType: dtype})
			if err != nil {
				tb.Fatal(err)
			}
			views = append(views, fs.View{Dir: layout + dir, Plan: plan})
		}
	}
	f, err := fs.New(c, views, fs.Options{CacheSize: 256 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return f
}

// at is where a virtual tensor lies.
type at struct {
	file   io.ReaderAt
	offset int64
	dtype  safetensors.DType
}

// locate opens every shard of a view and finds its tensors.
func locate(t *testing.T, tree iofs.FS, dir string) map[string]at {
	t.Helper()
	entries, err := iofs.ReadDir(tree, dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]at{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".safetensors") {
			continue
		}
		f, err := tree.Open(path.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		stat, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		h, err := safetensors.ReadHeader(f.(io.ReaderAt), stat.Size())
		if err != nil {
			t.Fatalf("%s: %v", e.Name(), err)
		}
		for _, x := range h.Tensors {
			out[x.Name] = at{f.(io.ReaderAt), h.DataOffset + x.Begin, x.DType}
		}
	}
	return out
}

// reads holds one element against the formula.
func (a at) reads(t *testing.T, s synth.Seed, name string, index int64) {
	t.Helper()
	want := synth.Round(a.dtype.String(), s.Value())
	got := make([]byte, len(want))
	if a.file == nil {
		t.Fatalf("no tensor %s", name)
	}
	if _, err := a.file.ReadAt(got, a.offset+index*int64(len(want))); err != nil {
		t.Fatalf("%s[%d] in %s: %v", name, index, a.dtype, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s[%d] in %s: %x, want %x (code %#x × %g)", name, index, a.dtype, got, want,
			s.Code, s.Scale)
	}
}

func TestFullSize(t *testing.T) {
	full, f := fullSize(t)
	t.Run("hf", func(t *testing.T) { everySeedOfTheHFView(t, full, f) })
	t.Run("mount", func(t *testing.T) { nativeThroughAMount(t, full, f) })
}

func everySeedOfTheHFView(t *testing.T, full *synth.Full, f *fs.FS) {
	for _, dir := range []string{"hf", "hf-f32"} {
		tensors := locate(t, f, dir)
		if len(tensors) < 46_000 {
			t.Errorf("%s has %d tensors", dir, len(tensors))
		}
		for _, s := range full.Seeds {
			tensors[s.Key].reads(t, s, s.Key, s.Index)
		}
	}
}

func nativeThroughAMount(t *testing.T, full *synth.Full, f *fs.FS) {
	requireFUSE(t)
	dir := t.TempDir()
	m, err := f.Mount(dir, fs.MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Unmount(false) }) // after locate's files are closed
	t.Run("sizes", func(t *testing.T) { sizesAreSensible(t, full, dir) })
	half, whole := locate(t, os.DirFS(dir), "native"), locate(t, os.DirFS(dir), "native-f32")
	read, beyond := 0, 0
	for s := range chosen(full.Seeds) {
		half[s.Native].reads(t, s, s.Native, s.NativeIndex)
		whole[s.Native].reads(t, s, s.Native, s.NativeIndex)
		read++
		if 2*s.NativeIndex >= 1<<33 {
			beyond++
		}
	}
	if read < 800 || beyond < 4 {
		t.Errorf("%d positions, %d beyond 2^33", read, beyond)
	}
}

// chosen leaves out most seeds of merged tensors, since a read of one element computes a whole
// expert's tensor. Of layer 3 it keeps the first, the last and those around 2^31, 2^32 and 2^33
// bytes. Of every sixth layer and of the MTP layer it keeps a random one.
func chosen(seeds []synth.Seed) iter.Seq[synth.Seed] {
	return func(yield func(synth.Seed) bool) {
		seen := map[string]int{}
		for _, s := range seeds {
			n := seen[s.Native]
			seen[s.Native]++
			merged, random := s.Native != s.Key, n >= 2 && n < 66
			if merged && (random || s.Layer != 3) &&
				(n != 2+s.Layer || s.Layer%6 != 0 && s.Layer != 61) {
				continue
			}
			if !yield(s) {
				return
			}
		}
	}
}

// sizesAreSensible checks what ls -l, stat and du are told.
func sizesAreSensible(t *testing.T, full *synth.Full, dir string) {
	total := map[string]int64{}
	err := iofs.WalkDir(os.DirFS(dir), ".", func(name string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if (st.Size+511)/512 > st.Blocks || st.Nlink != 1 || info.Mode() != 0o444 {
			t.Errorf("%s: %d bytes, %d blocks, %d links, %v", name, st.Size, st.Blocks, st.Nlink,
				info.Mode())
		}
		total[path.Dir(name)] += st.Size
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, layout := range []string{"native", "hf"} {
		for suffix, width := range map[string]int64{"": 2, "-f32": 4} {
			// Besides data there are headers and an index.
			data := dataSize(full, width)
			if got := total[layout+suffix]; got < data || got > data+64<<20 {
				t.Errorf("%s%s: %d bytes, want a little more than %d", layout, suffix, got, data)
			}
		}
	}
}

// dataSize is what all tensors take with width bytes for each element of a quantized one.
func dataSize(full *synth.Full, width int64) int64 {
	n := int64(0)
	for i := range full.Tensors {
		t := &full.Tensors[i]
		switch {
		case t.DType == "F8_E4M3":
			n += t.Size() * width
		case !strings.HasSuffix(t.Name, "_scale_inv"):
			n += t.Size()
		}
	}
	return n
}

// requireFUSE skips where there is none, unless the environment says that there must be.
func requireFUSE(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err == nil {
		return
	}
	want := "," + os.Getenv("DEQUANTFS_REQUIRE") + ","
	if strings.Contains(want, ",fuse,") || strings.Contains(want, ",all,") {
		t.Fatal("DEQUANTFS_REQUIRE asks for FUSE, and there is no /dev/fuse")
	}
	t.Skip("no /dev/fuse")
}

// BenchmarkFullSizeMount opens, plans, mounts and lists one view, and says what stays resident.
func BenchmarkFullSizeMount(b *testing.B) {
	dir := b.TempDir()
	if _, err := synth.WriteFull(dir); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		mountOnce(b, dir)
	}
	b.ReportMetric(residentMiB(b), "MiB-resident")
}

func mountOnce(b *testing.B, source string) {
	c, err := adapter.Open(context.Background(), source, adapter.OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	plan, err := adapter.NewPlan(c, adapter.Options{Layout: "native"})
	if err != nil {
		b.Fatal(err)
	}
	f, err := fs.New(c, []fs.View{{Plan: plan}}, fs.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	point := b.TempDir()
	m, err := f.Mount(point, fs.MountOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Unmount(false)
	if entries, err := os.ReadDir(point); err != nil || len(entries) < 60 {
		b.Fatal(len(entries), err)
	}
}

// residentMiB is the largest resident size that the process has had.
func residentMiB(b *testing.B) float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return float64(usage.Maxrss) / 1024
}
