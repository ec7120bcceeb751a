package units

import (
	"time"

	"github.com/dequantfs/dequantfs/adapter/expr"
)

// behind is how far behind a stream a unit still belongs to the stream. The kernel reads 16 MiB
// ahead, out of order.
const behind = 32 << 20

// span is the part of a file that needs a unit.
type span struct {
	file   File
	lo, hi int64
}

// spanOf finds the part of a file around a read that needs a unit. Recipes only tell which units a
// range needs, so it searches for the ends. The result is a hint.
func spanOf(r *Read, key expr.UnitKey) span {
	f := r.file
	for off, end := r.off, r.off+r.n; off < min(end, f.Size()); {
		node, begin, next := f.Recipe(off)
		if node != nil {
			p := probe{node: node, key: key, size: next - begin}
			from, to := off-begin, min(end, next)-begin
			if p.needs(from, to-from) {
				return span{f, begin + p.first(from), begin + p.last(from)}
			}
		}
		off = next
	}
	return span{f, 0, f.Size()}
}

// probe tests which ranges need a unit.
type probe struct {
	node  expr.Node
	key   expr.UnitKey
	size  int64
	found bool
}

// probeWidth is wider than a row in which several units alternate.
const probeWidth = 1 << 20

func (p *probe) needs(off, n int64) bool {
	p.found = false
	p.node.Units(off, min(n, p.size-off), func(u *expr.Unit) bool {
		p.found = u.Key() == p.key
		return !p.found
	})
	return p.found
}

// last finds where the unit ends. It doubles its steps, then halves them.
func (p *probe) last(at int64) int64 {
	step := int64(probeWidth)
	for at+step < p.size && p.needs(at+step, probeWidth) {
		at += step
		step *= 2
	}
	for ; step >= 4096; step /= 2 {
		if at+step < p.size && p.needs(at+step, probeWidth) {
			at += step
		}
	}
	end := min(at+probeWidth+8192, p.size)
	for step = probeWidth; step >= 1; step /= 2 {
		if at+step < end && p.needs(at+step, end-at-step) {
			at += step
		}
	}
	return min(at+1, p.size)
}

// first finds where the unit begins. It searches back from at.
func (p *probe) first(at int64) int64 {
	step := int64(probeWidth)
	for at > 0 && p.needs(max(at-step, 0), probeWidth) {
		at = max(at-step, 0)
		step *= 2
	}
	lo, hi := max(at-step, -1), at // [hi, hi+width) needs it, [lo, lo+width) does not
	for hi-lo > 4096 {
		if mid := (lo + hi) / 2; p.needs(mid, probeWidth) {
			hi = mid
		} else {
			lo = mid
		}
	}
	without, with := int64(0), int64(probeWidth) // [hi, hi+with) needs it
	for with-without > 1 {
		if mid := (without + with) / 2; p.needs(hi, mid) {
			with = mid
		} else {
			without = mid
		}
	}
	return hi + with - 1
}

// fits reports whether the span is in the file of the read, and near the read.
func (e *entry) fits(r *Read) bool {
	return e.span.file == r.file && r.off >= e.span.lo-behind && r.off <= e.span.hi+behind
}

// note records how much of an entry a read has used.
func (c *Cache) note(r *Read, e *entry) {
	e.read += max(min(r.off+r.n, e.span.hi)-max(r.off, e.span.lo), 0)
	e.clock, e.run, e.touched = r.run.Clock, r.run, time.Now()
	e.stream = r.run.Sequential || r.off <= e.span.lo
	c.sort(e)
}

// sort puts a ready unit into the list of idle or of spent units.
func (c *Cache) sort(e *entry) {
	was := c.spent.Contains(e.key)
	switch now := e.isSpent(); {
	case now && !was:
		c.idle.Remove(e.key)
		c.spent.Add(e.key, e)
		c.spentBytes += e.size
	case was && !now:
		c.spent.Remove(e.key)
		c.spentBytes -= e.size
		c.idle.Add(e.key, e)
	}
}

// isSpent reports whether a unit was read to its end.
func (e *entry) isSpent() bool { return e.span.file != nil && e.read >= e.span.hi-e.span.lo }
