package expr

import "fmt"

// UnitKey names a unit; equal keys mean equal bytes. Comparable.
type UnitKey struct {
	File   File // of a Computed unit the first of the files it is computed from
	Offset int64
	Kind   UnitKind

	// Rows and columns as stored, and the bytes from one row to the next: parts of
	// one tensor may begin at the same offset.
	Rows, Cols, Stride int64

	Recipe Node // what a Computed unit is computed from; nil for the others
}

// UnitKind says what a unit holds.
type UnitKind uint8

// The kinds of units.
const (
	Transposed UnitKind = iota // a 2-D source tensor (or a part of one, or of a 3-D one) transposed, in its source precision
	Grid                       // a scale grid as float32; small
	Computed                   // a scale grid computed from a whole recipe, as float32; small, but costly to fill
)

// String names the kind.
func (k UnitKind) String() string {
	return [...]string{"transposed", "grid", "computed"}[k]
}

// Unit is what the tensor cache holds.
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

// Key names the unit.
func (u *Unit) Key() UnitKey { return u.key }

// Size is the number of bytes of the filled unit.
func (u *Unit) Size() int64 { return u.of.unitSize(u) }

// Fill computes the unit into dst, which has Size bytes and may be dirty. It reads in strips, which
// it hands to [FillEnv.Together]. Without an environment it is filled by [Alone].
func (u *Unit) Fill(env FillEnv, dst []byte) error {
	if int64(len(dst)) != u.Size() {
		return fmt.Errorf("%s: %d bytes for a unit of %d", u, len(dst), u.Size())
	}
	if env == nil {
		env = &alone
	}
	return u.of.fillUnit(u, env, dst)
}

// String says which tensor and what of it.
func (u *Unit) String() string { return u.of.unitName(u) }
