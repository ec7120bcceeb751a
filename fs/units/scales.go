package units

import (
	"math"
	"sync"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// smallGrid is the most bytes of a grid that each reader fills for itself.
const smallGrid = 64 << 10

// scaleCache keeps scale grids apart from the tensor cache, since they are small and every read
// needs them. A read that misses a grid fills it itself, without waiting. Their memory is
// garbage-collected.
type scaleCache struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[expr.UnitKey, *entry]
	bytes int64
	max   int64
}

func newScaleCache() *scaleCache {
	g := &scaleCache{}
	g.lru, _ = simplelru.NewLRU[expr.UnitKey, *entry](math.MaxInt, nil)
	return g
}

// setMax changes how many bytes are kept.
func (g *scaleCache) setMax(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.max = n
	g.trim()
}

// trim evicts the oldest grids while there are too many bytes.
func (g *scaleCache) trim() {
	for g.bytes > g.max {
		_, old, _ := g.lru.RemoveOldest()
		g.bytes -= old.size
	}
}

// get returns a grid, and fills it if it is missing.
func (g *scaleCache) get(in expr.Input, u Unit) (*entry, error) {
	key := u.Key()
	g.mu.Lock()
	e, ok := g.lru.Get(key)
	g.mu.Unlock()
	if ok {
		return e, key.File.Check()
	}
	e = &entry{key: key, size: u.Size(), buf: make([]byte, u.Size())}
	if err := u.Fill(inline{in}, e.buf); err != nil {
		return nil, err
	}
	g.add(e)
	return e, nil
}

func (g *scaleCache) add(e *entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.size > g.max || g.lru.Contains(e.key) {
		return
	}
	g.lru.Add(e.key, e)
	g.bytes += e.size
	g.trim()
}

// inline is the environment of a fill in the goroutine of a reader.
type inline struct{ expr.Input }

// Together runs the functions one after the other.
func (inline) Together(fns ...func() error) error { return new(expr.Alone).Together(fns...) }
