package export_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// exportHF writes the layout hf of a checkpoint into a directory and verifies the files.
func exportHF(ctx context.Context, source, dir string) (*export.Verification, error) {
	c, err := adapter.Open(ctx, source, adapter.OpenOptions{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	plan, err := adapter.NewPlan(c, adapter.Options{Layout: "hf"})
	if err != nil {
		return nil, err
	}
	tree, err := fs.New(c, []fs.View{{Plan: plan}}, fs.Options{})
	if err != nil {
		return nil, err
	}
	defer tree.Close()

	m, err := export.Write(ctx, tree, dir, export.Options{})
	if err != nil {
		return nil, err // run it again to continue
	}
	return m.Verify(ctx, dir, export.VerifyOptions{})
}

func Example() {
	temp, err := os.MkdirTemp("", "export-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(temp)
	source, dir := filepath.Join(temp, "source"), filepath.Join(temp, "export")
	if err := synth.DeepSeek(synth.Options{Shards: 2}).Write(source); err != nil {
		fmt.Println(err)
		return
	}
	found, err := exportHF(context.Background(), source, dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(found.Tensors > 0, len(found.Differences), "differences")
	// Output: true 0 differences
}
