package expr

import (
	"encoding/binary"
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// groups is a stored list with the group of each row or column of a matrix.
type groups struct {
	src   *Source // I32
	axis  int     // in the orientation of the node: 0 for rows
	count int     // of groups
	unit  Unit
}

// newGroups checks that a list has an entry for each of size rows or columns. count is the number
// of groups that have scales.
func newGroups(g Groups, size int64, count int) (*groups, error) {
	h, err := checkSource(g.Source)
	if err != nil {
		return nil, err
	}
	if g.Source.DType != safetensors.I32 || h.size != 4*size || g.Axis < 0 || g.Axis > 1 {
		return nil, fmt.Errorf("%s: groups of dtype %s and shape %v: expected I32 [%d]",
			g.Source.Key, g.Source.DType, g.Source.Shape, size)
	}
	l := &groups{src: g.Source, axis: g.Axis, count: count}
	key := UnitKey{File: l.src.File, Offset: l.src.Offset, Kind: Grid, Rows: 1, Cols: size}
	l.unit = Unit{key, l}
	return l, nil
}

func (l *groups) transpose() *groups {
	t := *l
	t.axis = 1 - l.axis
	return &t
}

func (l *groups) unitSize(u *Unit) int64 { return 4 * u.key.Cols }

func (l *groups) unitName(*Unit) string { return "groups " + l.src.Key }

func (l *groups) fillUnit(_ *Unit, env FillEnv, dst []byte) error { return l.read(env, dst) }

// read reads the list. It refuses groups without a scale.
func (l *groups) read(in Input, dst []byte) error {
	if err := read(in, l.src, dst, l.src.Offset); err != nil {
		return err
	}
	for i := 0; i < len(dst); i += 4 {
		if g := binary.LittleEndian.Uint32(dst[i:]); uint64(g) >= uint64(l.count) {
			return fmt.Errorf("%s: %s: group %d at position %d: expected 0 to %d",
				l.src.File.Name(), l.src.Key, int32(g), i/4, l.count-1)
		}
	}
	return nil
}

// list calls use with the stored list, which is only valid during the call.
func (l *groups) list(env Env, use func([]byte)) error {
	e, err := env.Unit(&l.unit)
	if err != nil {
		return err
	}
	if e != nil {
		defer e.Release()
		use(e.Bytes())
		return nil
	}
	b := getBuffer(int(l.unitSize(&l.unit)))
	defer b.put()
	if err := l.read(env, b.bytes); err != nil {
		return err
	}
	use(b.bytes)
	return nil
}

// borrowGroups returns one scale for each row or column of a window, of the group in the list.
func (g *grid) borrowGroups(env Env, m int, w window) (scales, error) {
	axis, need := g.groups.axis, g.window(w)
	lo, hi, s := w.c0, w.c1, scales{}
	if axis == 0 {
		lo, hi = w.r0, w.r1
		need.r0, need.r1 = 0, g.groups.count
		_, s.col = first(g.origin[1]+w.c0, g.block[1])
	} else {
		need.c0, need.c1 = 0, g.groups.count
		_, s.row = first(g.origin[0]+w.r0, g.block[0])
	}
	all := getFloats(need.rows() * need.cols())
	defer all.put()
	if err := g.gather(env, m, all.values, need); err != nil {
		return s, err
	}
	lo, hi = lo+g.origin[axis], hi+g.origin[axis]
	if axis == 0 {
		s.stride, s.floats = need.cols(), getFloats((hi-lo)*need.cols())
	} else {
		s.stride, s.floats = hi-lo, getFloats(need.rows()*(hi-lo))
	}
	err := g.groups.list(env, func(list []byte) {
		pickGroups(s.floats.values, all.values, need, list[4*lo:4*hi], axis)
	})
	if err != nil {
		s.release()
	}
	return s, err
}

// pickGroups copies the row (axis 0) or the column of each group in the list.
func pickGroups(dst, all []float32, of window, list []byte, axis int) {
	n, cols := len(list)/4, of.cols()
	group := func(i int) int { return int(binary.LittleEndian.Uint32(list[4*i:])) }
	if axis == 0 {
		for i := range n {
			copy(dst[i*cols:][:cols], all[group(i)*cols:])
		}
		return
	}
	for r := range of.rows() { // row by row, because columns are far apart in memory
		row, out := all[r*cols:][:cols], dst[r*n:][:n]
		for i := range out {
			out[i] = row[group(i)]
		}
	}
}
