package fs_test

import (
	"context"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// withTree opens a checkpoint and shows its layout hf as a tree.
func withTree(source string, use func(*fs.FS) error) error {
	c, err := adapter.Open(context.Background(), source, adapter.OpenOptions{})
	if err != nil {
		return err
	}
	defer c.Close()
	plan, err := adapter.NewPlan(c, adapter.Options{Layout: "hf"})
	if err != nil {
		return err
	}
	tree, err := fs.New(c, []fs.View{{Plan: plan}}, fs.Options{})
	if err != nil {
		return err
	}
	defer tree.Close()
	return use(tree)
}

// list prints the names of all files of a tree.
func list(tree *fs.FS) error {
	return iofs.WalkDir(tree, ".", func(name string, d iofs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			fmt.Println(name)
		}
		return err
	})
}

// mount mounts a tree, uses it, and unmounts it.
func mount(tree *fs.FS, mountpoint string, use func() error) error {
	m, err := tree.Mount(mountpoint, fs.MountOptions{})
	if err != nil {
		return err
	}
	err = use()
	if e := m.Shutdown(context.Background()); err == nil {
		err = e
	}
	return err
}

// A tree is an io/fs.FS, so it can be walked and read without a mount.
func Example() {
	temp, err := os.MkdirTemp("", "fs-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(temp)
	if err := synth.DeepSeek(synth.Options{Shards: 2}).Write(temp); err != nil {
		fmt.Println(err)
		return
	}
	if err := withTree(temp, list); err != nil {
		fmt.Println(err)
	}
	// Output:
	// config.json
	// generation_config.json
	// model-00001-of-000002.safetensors
	// model-00002-of-000002.safetensors
	// model.safetensors.index.json
	// tokenizer_config.json
}

// A mount shows the tree to all programs of this user.
func ExampleFS_Mount() {
	err := withTree("DeepSeek-V3", func(tree *fs.FS) error {
		return mount(tree, "/mnt/model", func() error {
			_, err := os.ReadFile("/mnt/model/config.json")
			return err
		})
	})
	if err != nil {
		fmt.Println(err)
	}
}

func TestTheExampleMounts(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil &&
		!strings.Contains(os.Getenv("DEQUANTFS_REQUIRE"), "fuse") {
		t.Skip(err)
	}
	source, mountpoint := t.TempDir(), t.TempDir()
	if err := synth.DeepSeek(synth.Options{Shards: 2}).Write(source); err != nil {
		t.Fatal(err)
	}
	err := withTree(source, func(tree *fs.FS) error {
		want, err := iofs.ReadFile(tree, "config.json")
		if err != nil {
			return err
		}
		return mount(tree, mountpoint, func() error {
			got, err := os.ReadFile(filepath.Join(mountpoint, "config.json"))
			if string(got) != string(want) {
				t.Error("config.json differs")
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}
