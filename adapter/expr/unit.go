package expr

import "fmt"

// UnitKey identifies a unit. Units with equal keys have equal bytes.
type UnitKey struct {
	File   File // of a Computed unit, the first file that it depends on
	Offset int64
	Kind   UnitKind

	// Rows and columns as stored, and the bytes between rows. They distinguish parts of one tensor
	// that begin at the same offset.
	Rows, Cols, Stride int64

	Recipe Node // the recipe of a Computed unit; otherwise nil
}

// UnitKind is the contents of a unit.
type UnitKind uint8

// The kinds of units.
const (
	Transposed UnitKind = iota // a matrix of a source tensor, transposed, in its source precision
	Grid                       // a stored grid of scales, as float32; small
	Computed                   // a grid computed from a whole recipe; small, but expensive to fill
)

// String returns the name of the kind.
func (k UnitKind) String() string {
	return [...]string{"transposed", "grid", "computed"}[k]
}

// Unit is an entry of the tensor cache.
type Unit struct {
	key UnitKey
	of  filler
}

// filler computes units.
type filler interface {
	unitSize(u *Unit) int64
	fillUnit(u *Unit, env FillEnv, dst []byte) error
	unitName(u *Unit) string
}

// maxUnits is the most units of a stack that are kept. A sparse file can declare more matrices than
// fit into memory, so the units of the others are made for each use. Only tests change it.
var maxUnits = 4096

// unitList is the units of the matrices of a stack.
type unitList struct {
	of   unitMaker
	kept []Unit // of the first matrices
}

// unitMaker computes the units of the matrices of a stack.
type unitMaker interface {
	filler
	unitKey(m int) UnitKey
}

func newUnitList(matrices int, of unitMaker) unitList {
	l := unitList{of, make([]Unit, min(matrices, maxUnits))}
	for m := range l.kept {
		l.kept[m] = Unit{of.unitKey(m), of}
	}
	return l
}

// at returns the unit of matrix m.
func (l *unitList) at(m int) *Unit {
	if m < len(l.kept) {
		return &l.kept[m]
	}
	return &Unit{l.of.unitKey(m), l.of}
}

// Key returns the key of the unit.
func (u *Unit) Key() UnitKey { return u.key }

// Size returns the number of bytes of the filled unit.
func (u *Unit) Size() int64 { return u.of.unitSize(u) }

// Fill computes the unit into dst, which has Size bytes with undefined contents. It works in
// strips, which it passes to [FillEnv.Together]. A nil env is [Alone].
func (u *Unit) Fill(env FillEnv, dst []byte) error {
	if int64(len(dst)) != u.Size() {
		return fmt.Errorf("%s: %d bytes for a unit of %d", u, len(dst), u.Size())
	}
	if env == nil {
		env = &alone
	}
	return u.of.fillUnit(u, env, dst)
}

// Spans calls yield for the ranges of source files that a fill reads, if they are large. It stops
// when yield returns false, and then returns false.
func (u *Unit) Spans(yield func(f File, off, n int64) bool) bool {
	s, large := u.of.(spanner)
	return !large || s.unitSpans(u, yield)
}

// spanner computes units from ranges that are worth fetching ahead.
type spanner interface {
	unitSpans(u *Unit, yield func(f File, off, n int64) bool) bool
}

// String returns the name of the unit for messages.
func (u *Unit) String() string { return u.of.unitName(u) }
