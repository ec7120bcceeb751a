package adapter_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dequantfs/dequantfs/adapter"
	origin "github.com/dequantfs/dequantfs/adapter/source"
)

// closingStore notes in which order it and its files are closed.
type closingStore struct {
	origin.Store
	mu     sync.Mutex
	closed []string
}

func (s *closingStore) note(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = append(s.closed, name)
}

func (s *closingStore) Open(ctx context.Context, name string) (origin.File, error) {
	f, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &closingFile{f, s}, nil
}

func (s *closingStore) Close() error {
	s.note("the store")
	return s.Store.Close()
}

type closingFile struct {
	origin.File
	of *closingStore
}

func (f *closingFile) Close() error {
	f.of.note(f.Name())
	return f.File.Close()
}

// Files look at who may read them when they are closed before their store. That takes calls of the
// system which a server may leave unanswered.
func TestTheStoreIsClosedBeforeItsFiles(t *testing.T) {
	s, _, err := origin.Open(manyShards(t, 4), origin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := &closingStore{Store: s}
	c, err := adapter.OpenStore(t.Context(), store, adapter.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	store.closed = nil
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if len(store.closed) < 5 || store.closed[0] != "the store" {
		t.Errorf("closed in this order: %s", strings.Join(store.closed, ", "))
	}
}

// silentStore has shards whose reads end with their context only. Like those of a server that does
// not answer, they cannot be closed then.
type silentStore struct {
	origin.Store
	asked   chan struct{} // told of the first read
	release chan struct{} // closed when the server answers again
	closed  chan string   // told of each file that is closed
}

func (s *silentStore) Open(ctx context.Context, name string) (origin.File, error) {
	f, err := s.Store.Open(ctx, name)
	if err != nil || filepath.Ext(name) != ".safetensors" {
		return f, err
	}
	return &silentFile{f, s}, nil
}

type silentFile struct {
	origin.File
	of *silentStore
}

func (f *silentFile) ReadAt(ctx context.Context, _ []byte, _ int64) (int, error) {
	select {
	case f.of.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

func (f *silentFile) Close() error {
	<-f.of.release
	f.of.closed <- f.Name()
	return f.File.Close()
}

func TestOpeningThatIsCancelledDoesNotWaitForASilentSource(t *testing.T) {
	const shards = 20
	s, _, err := origin.Open(manyShards(t, shards), origin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := &silentStore{s, make(chan struct{}, 1), make(chan struct{}), make(chan string, shards)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-store.asked
		cancel()
	}()
	_, err = adapter.OpenStore(ctx, store, adapter.OpenOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(store.release)
	var closed []string
	for range shards {
		closed = append(closed, <-store.closed)
	}
	slices.Sort(closed)
	if all := slices.Compact(closed); len(all) != shards {
		t.Errorf("%d of %d shards were closed later", len(all), shards)
	}
}
