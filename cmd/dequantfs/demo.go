package main

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
)

// demoFiles is a small DeepSeek-V3 checkpoint in FP8, with the SHA-256 of the tensors that the
// reference adapter computed from it. testdata/golden/README.md says how the files were made. Large
// files are compressed (gzip -9n) to keep releases small.
//
//go:embed demo/config.json demo/model.safetensors.gz demo/native-sha256.json.gz
var demoFiles embed.FS

// readDemo returns an embedded file, uncompressed.
func readDemo(name string) ([]byte, error) {
	if data, err := demoFiles.ReadFile("demo/" + name); err == nil {
		return data, nil
	}
	f, err := demoFiles.Open("demo/" + name + ".gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// demoViews are the views of the demo. The SHA-256 of the reference are of the native layout.
var demoViews = []struct {
	dir, layout string
	dtype       safetensors.DType
	reference   string // in native-sha256.json
}{
	{"native", "native", safetensors.BF16, "torch.bfloat16/cpu"},
	{"native-f16", "native", safetensors.F16, "torch.float16/cpu"},
	{"native-f32", "native", safetensors.F32, "torch.float32/cpu"},
	{"hf", "hf", safetensors.BF16, ""},
}

func newDemo() *cobra.Command {
	c := &cobra.Command{
		Use:   "demo [MOUNTPOINT]",
		Short: "mount a small checkpoint inside this binary and check its bytes",
		Long: "Mount a small DeepSeek-V3 checkpoint in FP8 that is inside this binary, read\n" +
			"every tensor through the mount, and compare its SHA-256 with what the reference\n" +
			"adapter (NeMo AutoModel) computed. With a MOUNTPOINT the mount stays until\n" +
			"dequantfs umount. Without FUSE the same is read without a mount.",
		Example: "  dequantfs demo\n  dequantfs demo /tmp/demo",
		Args:    arity(0, 1),
		RunE:    runDemo,
	}
	addQuiet(c)
	return c
}

func runDemo(c *cobra.Command, args []string) error {
	p := newProcess()
	if p.child {
		return serveDemo(c, p, args[0])
	}
	if err := fuseMissing(); err != nil {
		return demoWithoutMount(c, err)
	}
	stay := len(args) > 0
	if !stay {
		dir, err := temporaryFolder("dequantfs-demo-")
		if err != nil {
			return demoWithoutMount(c, err)
		}
		defer os.Remove(dir) // empty once it is unmounted
		args = []string{dir}
	}
	err := startBackground(c.Context(), nil, c.ErrOrStderr(), "", "demo", args[0])
	switch {
	case err != nil && (stay || c.Context().Err() != nil):
		return err
	case err != nil:
		return demoWithoutMount(c, errors.New("the mount failed"))
	}
	err = prove(c, os.DirFS(args[0]), "through the mount at "+args[0])
	if err == nil && stay {
		fmt.Fprintf(c.OutOrStdout(), "it stays mounted at %[1]s: dequantfs umount %[1]s\n",
			oneLine(args[0]))
		return nil
	}
	// Also after an interruption: nothing is left mounted.
	return errors.Join(err, umount(context.WithoutCancel(c.Context()), args[0], err != nil))
}

// serveDemo runs the process behind the mount of the demo.
func serveDemo(c *cobra.Command, p *process, mountpoint string) error {
	s, remove, err := openDemo(c)
	if err != nil {
		return err
	}
	defer remove()
	if mountpoint, err = filepath.Abs(mountpoint); err != nil {
		return errors.Join(err, s.Close())
	}
	m, err := mountSource(s, mountpoint, fs.MountOptions{FsName: "demo"}, logger(c))
	if err != nil {
		return explainMount(err, mountpoint, "SOURCE")
	}
	m.log = slog.New(slog.DiscardHandler)
	r := record{Mountpoint: mountpoint, Source: "demo", PID: os.Getpid(), Started: time.Now()}
	defer m.announce(r)()
	if err := p.ready(); err != nil {
		return errors.Join(err, m.close())
	}
	return m.serve(c.Context(), 0, drainTime)
}

// demoWithoutMount reads the demo in this process, because it cannot be mounted.
func demoWithoutMount(c *cobra.Command, why error) error {
	logger(c).Warn("this machine cannot mount: reading without a mount",
		"because", explainMount(why, "", "SOURCE"))
	s, remove, err := openDemo(c)
	if err != nil {
		return err
	}
	defer remove()
	return errors.Join(prove(c, s.fs, "without a mount"), s.Close())
}

// openDemo opens a copy of the embedded checkpoint on disk, because a source consists of files.
// remove removes the copy.
func openDemo(c *cobra.Command) (s *opened, remove func(), err error) {
	dir, err := temporaryFolder("dequantfs-demo-source-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := readDemo(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o444)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	s, err = openSource(c.Context(), dir, fs.Options{Logger: logger(c)}, opening{}, planDemo)
	return s, remove, err
}

func planDemo(checkpoint *adapter.Checkpoint) (views []fs.View, err error) {
	for _, d := range demoViews {
		p, err := adapter.NewPlan(checkpoint, adapter.Options{Layout: d.layout, DType: d.dtype})
		if err != nil {
			return nil, err
		}
		views = append(views, fs.View{Dir: d.dir, Plan: p})
	}
	return views, nil
}

// prove prints the tree, reads every tensor in it and compares.
func prove(c *cobra.Command, tree iofs.FS, how string) error {
	out := c.OutOrStdout()
	fmt.Fprintln(out,
		"a DeepSeek-V3 checkpoint in FP8 (3 layers and an MTP layer, 4 experts, 4.1 MB), read "+how)
	if err := showTree(out, tree); err != nil {
		return err
	}
	var reference map[string]map[string][]any
	data, err := readDemo("native-sha256.json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &reference); err != nil {
		return err
	}
	for _, d := range demoViews {
		if err := proveView(c, tree, d.dir, reference[d.reference]); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "proved: these are bit for bit the tensors that NeMo AutoModel's "+
		"DeepSeek-V3 adapter computes, and nothing was converted up front")
	return nil
}

// proveView reads every tensor of a view and compares it with the reference, if there is one.
func proveView(c *cobra.Command, tree iofs.FS, dir string, reference map[string][]any) error {
	sums, n, err := sumTensors(c.Context(), tree, dir)
	if err != nil {
		return err
	}
	verdict := "all read"
	if reference != nil {
		verdict = "every SHA-256 equals the reference's"
		if err := compareSums(sums, reference); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	fmt.Fprintf(c.OutOrStdout(), "%-10s  %d tensors, %s: %s\n",
		dir, len(sums), formatSize(n), verdict)
	return nil
}

// showTree prints the files of the tree.
func showTree(w io.Writer, tree iofs.FS) error {
	return iofs.WalkDir(tree, ".", func(name string, d iofs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		indent := strings.Repeat("  ", strings.Count(name, "/")+1)
		if d.IsDir() {
			_, err = fmt.Fprintf(w, "%s%s/\n", indent, d.Name())
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s%-36s %10s\n", indent, d.Name(), formatSize(info.Size()))
		return err
	})
}

// sumTensors returns the SHA-256 of every tensor below a directory, and the number of bytes.
func sumTensors(ctx context.Context, tree iofs.FS, dir string) (map[string]string, int64, error) {
	names, err := iofs.Glob(tree, path.Join(dir, "*.safetensors"))
	if err != nil {
		return nil, 0, err
	}
	sums, total := map[string]string{}, int64(0)
	for _, name := range names {
		n, err := sumFile(ctx, tree, name, sums)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", name, err)
		}
		total += n
	}
	return sums, total, nil
}

// sumFile adds the SHA-256 of the tensors of one safetensors file.
func sumFile(
	ctx context.Context, tree iofs.FS, name string, sums map[string]string,
) (total int64, err error) {
	f, err := tree.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	at, ok := f.(io.ReaderAt)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	header, err := safetensors.ReadHeader(at, info.Size())
	if err != nil {
		return 0, err
	}
	for _, t := range header.Tensors {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		hash := sha256.New()
		n, err := io.Copy(hash, io.NewSectionReader(at, header.DataOffset+t.Begin, t.End-t.Begin))
		if err != nil {
			return 0, err
		}
		sums[t.Name] = hex.EncodeToString(hash.Sum(nil))
		total += n
	}
	return total, nil
}

// compareSums compares with the reference, which has [dtype, shape, SHA-256] of each tensor.
func compareSums(got map[string]string, reference map[string][]any) error {
	if len(got) != len(reference) {
		return fmt.Errorf("%d tensors, but the reference has %d", len(got), len(reference))
	}
	for name, want := range reference {
		if len(want) != 3 || got[name] != want[2] {
			return fmt.Errorf("tensor %s: SHA-256 %q, but the reference has %v",
				name, got[name], want)
		}
	}
	return nil
}
