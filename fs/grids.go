package fs

import (
	"math"
	"sync"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxGrids is the most that scale grids may take, beside the tensor cache's budget.
const maxGrids = 16 << 20

// grids keeps scale grids. They are small and needed by every read, so they are kept apart from
// the tensor cache: whoever misses one reads it himself, nobody waits, and memory is the
// garbage collector's.
type grids struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[expr.UnitKey, *entry]
	bytes int64
	max   int64
}

func newGrids(limit int64) *grids {
	g := &grids{max: limit}
	g.lru, _ = simplelru.NewLRU[expr.UnitKey, *entry](math.MaxInt, nil)
	return g
}

// setMax changes how many bytes are kept.
func (g *grids) setMax(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.max = n
	g.trim()
}

// trim throws the oldest out while there are too many.
func (g *grids) trim() {
	for g.bytes > g.max {
		_, old, _ := g.lru.RemoveOldest()
		g.bytes -= old.size
	}
}

// get finds a grid or fills it.
func (g *grids) get(env *expr.Env, u unit) (*entry, error) {
	key := u.Key()
	g.mu.Lock()
	e, ok := g.lru.Get(key)
	g.mu.Unlock()
	if ok {
		return e, check(key.File)
	}
	e = &entry{key: key, size: u.Size(), buf: make([]byte, u.Size())}
	if err := u.Fill(env, e.buf); err != nil {
		return nil, err
	}
	g.add(e)
	return e, nil
}

func (g *grids) add(e *entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.size > g.max || g.lru.Contains(e.key) {
		return
	}
	g.lru.Add(e.key, e)
	g.bytes += e.size
	g.trim()
}

// check asks a source file whether it is what it was: kept bytes of a file that has changed are wrong.
func check(f expr.File) error { return f.Check() }
