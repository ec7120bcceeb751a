package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/steady"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// stalled is a file that does not answer. A real one would keep the process that reads it from
// ending, also this one.
type stalled struct {
	steady.File
	asked, release chan struct{}
}

func (s *stalled) Name() string { return "stalled" }
func (s *stalled) Size() int64  { return 1 << 20 }

func (s *stalled) ReadAt(_ context.Context, p []byte, _ int64) (int, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-s.release
	return len(p), nil
}

func TestAFileThatDoesNotAnswerDoesNotKeepAMountThatIsGone(t *testing.T) {
	t.Parallel() // it takes the seconds that the source is waited for
	dir := filepath.Join(t.TempDir(), "model")
	if err := synth.DeepSeek(synth.Options{}).Write(dir); err != nil {
		t.Fatal(err)
	}
	checkpoint, err := adapter.Open(t.Context(), dir, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file := &stalled{asked: make(chan struct{}, 1), release: make(chan struct{})}
	load, err := expr.Load(&expr.Source{Key: "x", File: file, DType: safetensors.U8,
		Shape: []int64{1 << 10, 1 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	node, err := expr.Transpose(load)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := fs.New(nil,
		[]fs.View{{Plan: &adapter.Plan{Tensors: []adapter.Tensor{{Name: "x", Node: node,
			Group: "g"}}}}}, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	said := new(strings.Builder)
	m := &mounted{opened: &opened{fs: tree, checkpoint: checkpoint},
		log: slog.New(slog.NewTextHandler(said, nil))}
	r, err := tree.ReaderAt("model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := r.ReadAt(make([]byte, 4096), 8192)
		read <- err
	}()
	<-file.asked
	if err := m.closeSource(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(said.String(), "does not answer") {
		t.Errorf("it said: %s", said)
	}
	if err := <-read; err == nil {
		t.Error("the read went well")
	}
	close(file.release)
}
