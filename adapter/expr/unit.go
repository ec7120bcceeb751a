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

// String returns the name of the unit for messages.
func (u *Unit) String() string { return u.of.unitName(u) }
