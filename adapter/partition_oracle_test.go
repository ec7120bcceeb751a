package adapter

import (
	"fmt"
	"slices"
	"strings"
)

// The oracle of partitions shares no code with the package. It writes a partition out: for every
// row of a matrix the row of the grid, and for every column the column of the grid. A list of all
// spellings decides whether a stored shape can be the grid.

// knownPartition is one way to apply scales to a weight.
type knownPartition struct {
	name       string  // as in messages
	rows, cols []int64 // for each row and column of a matrix, the row and column of its grid
	list       bool    // the grid may omit an axis of one element
	shared     bool    // one number for all matrices
	larger     bool    // the grid may have more rows and columns
	parts      bool    // it divides the parts of a fused matrix
	words      words   // the words of a configuration that name it
}

// words is the description of a weight in a configuration.
type words struct {
	tensor, channel bool
	blocks          [][2]int64
}

// tableWeight is a weight of the table.
type tableWeight struct {
	key      string // after its layer
	shape    []int64
	parts    []int64 // rows of its parts; nil: it is not fused
	given    bool    // the configuration gives the parts
	family   string
	settings map[string]any // the fields of config.json that it needs
	codes    []byte         // made when they are needed
}

// matrix returns count, rows and columns of the matrices of a weight.
func (w *tableWeight) matrix() (count, rows, cols int64) {
	switch s := w.shape; len(s) {
	case 1:
		return 1, 1, s[0]
	case 2:
		return 1, s[0], s[1]
	case 3:
		return s[0], s[1], s[2]
	default:
		return 1, s[0], s[1] * s[2] * s[3]
	}
}

// axis numbers the blocks along an axis that consists of pieces. A block of 0 is a whole piece.
func axis(block int64, pieces ...int64) (at []int64) {
	next := int64(0)
	for _, n := range pieces {
		inBlock := int64(0)
		for range n {
			if block > 0 && inBlock == block {
				next, inBlock = next+1, 0
			}
			at = append(at, next)
			inBlock++
		}
		next++
	}
	return at
}

// blocked is a partition in blocks, of the whole or of each part.
func (w *tableWeight) blocked(block [2]int64, parts []int64) knownPartition {
	_, rows, cols := w.matrix()
	k := knownPartition{parts: parts != nil, cols: axis(block[1], cols)}
	if parts == nil {
		parts = []int64{rows}
	}
	k.rows = axis(block[0], parts...)
	switch {
	case block == [2]int64{0, 0}:
		k.name, k.list, k.words = "one scale per matrix", k.parts, words{tensor: true}
	case block == [2]int64{1, 0}:
		k.name, k.list, k.words = "one scale per row", true, words{channel: true}
	case block == [2]int64{0, 1}:
		k.name, k.list, k.words = "one scale per column", len(w.shape) == 3, words{channel: true}
	case block[0] == 1:
		k.name, k.words = fmt.Sprintf("groups of %d in a row", block[1]),
			words{blocks: [][2]int64{block}}
	default:
		k.name, k.words = fmt.Sprintf("blocks of %d × %d", block[0], block[1]),
			words{blocks: [][2]int64{block}}
	}
	switch {
	case k.parts && block == [2]int64{0, 0}:
		k.name = fmt.Sprintf("one scale per part of %d", len(parts))
	case k.parts:
		k.name += fmt.Sprintf(" in each of %d parts", len(parts))
	}
	return k
}

// padded is a partition in blocks under a larger grid. No configuration names it.
func (w *tableWeight) padded(block [2]int64) knownPartition {
	k := w.blocked(block, nil)
	k.name, k.larger, k.words = k.name+" (top left of a larger grid)", true, words{}
	return k
}

// listedBlocks are the block sizes of published checkpoints.
var listedBlocks = [][2]int64{{128, 128}, {64, 64}, {32, 32}, {1, 128}, {1, 64}, {1, 32}, {1, 512}}

// known are the partitions that a weight may have under a configuration.
func (w *tableWeight) known(c words) (all []knownPartition) {
	all = append(all, w.blocked([2]int64{0, 0}, nil), w.blocked([2]int64{1, 0}, nil))
	if len(w.shape) != 2 && len(w.shape) != 3 {
		return all
	}
	if len(w.shape) == 3 {
		_, rows, cols := w.matrix()
		all = append(all, knownPartition{name: "one scale per tensor", rows: make([]int64, rows),
			cols: make([]int64, cols), shared: true, words: words{tensor: true}})
	}
	all = append(all, w.blocked([2]int64{0, 1}, nil))
	blocks := c.blocks
	if len(blocks) == 0 {
		blocks = listedBlocks
	}
	for _, b := range blocks {
		all = append(all, w.blocked(b, nil))
	}
	if w.parts != nil {
		all = append(all, w.blocked([2]int64{0, 0}, w.parts))
		for _, b := range blocks {
			all = append(all, w.blocked(b, w.parts))
		}
	}
	if w.family == "deepseek_v3" {
		larger := c.blocks
		if len(larger) == 0 {
			larger = listedBlocks[:1]
		}
		for _, b := range larger {
			all = append(all, w.padded(b))
		}
	}
	return all
}

// grid returns the shape of the grid over one matrix.
func (k *knownPartition) grid() (rows, cols int64) {
	return k.rows[len(k.rows)-1] + 1, k.cols[len(k.cols)-1] + 1
}

// spellings lists the stored shapes of the scales of a partition, the plain one first.
func (w *tableWeight) spellings(k *knownPartition) (all [][]int64) {
	count, _, _ := w.matrix()
	rows, cols := k.grid()
	number := [][]int64{{1}, {}, {1, 1}, {1, 1, 1}}
	switch {
	case k.shared:
		return number
	case len(w.shape) != 2 && len(w.shape) != 3:
		full := make([]int64, len(w.shape))
		for i := range full {
			full[i] = 1
		}
		full[0] = rows
		all = append(all, full)
		if rows == 1 {
			all = append(all, number...)
		}
		return all
	}
	all = [][]int64{{rows, cols}, {rows, 1, cols, 1}, {rows, cols, 1}, {rows, 1, cols},
		{1, rows, cols}}
	switch {
	case rows == 1 && cols == 1 && len(w.shape) == 3:
		all = append(all, []int64{}, []int64{1})
	case rows == 1 && cols == 1:
		all = append(all, number...)
	case k.list && cols == 1:
		all = append(all, []int64{rows})
	case k.list && rows == 1:
		all = append(all, []int64{cols})
	}
	if len(w.shape) == 3 {
		for i := range all {
			all[i] = append([]int64{count}, all[i]...)
		}
	}
	return all
}

// fits reports whether a stored shape can be that of the partition.
func (w *tableWeight) fits(k *knownPartition, stored []int64) bool {
	if !k.larger {
		return slices.ContainsFunc(w.spellings(k),
			func(s []int64) bool { return slices.Equal(s, stored) })
	}
	count, _, _ := w.matrix()
	rows, cols := k.grid()
	plain := []int64{rows, cols}
	if len(w.shape) == 3 {
		plain = []int64{count, rows, cols}
	}
	n := len(plain)
	return len(stored) == n && stored[0] >= plain[0] && (n == 2 || stored[0] == count) &&
		stored[n-2] >= rows && stored[n-1] >= cols && !slices.Equal(stored, plain)
}

// positions returns, for every element of the weight, the position of its scale in a stored tensor.
func (w *tableWeight) positions(k *knownPartition, stored []int64) []int64 {
	count, m, n := w.matrix()
	rows, cols := k.grid()
	if k.larger {
		rows, cols = stored[len(stored)-2], stored[len(stored)-1]
	}
	at := make([]int64, count*m*n)
	if k.shared {
		return at
	}
	left := at // elements without a position
	for e := range count {
		for i := range m {
			row := (e*rows + k.rows[i]) * cols
			for j, col := range k.cols[:n] {
				left[j] = row + col
			}
			left = left[n:]
		}
	}
	return at
}

// reading is one way to use a stored scale tensor: the partitions that give the same bytes.
type reading struct {
	members []knownPartition
}

// namedBy reports whether a configuration names one of the partitions.
func (r *reading) namedBy(c words) bool {
	return slices.ContainsFunc(r.members, func(k knownPartition) bool {
		return k.words.tensor && c.tensor || k.words.channel && c.channel ||
			len(k.words.blocks) > 0 && slices.Contains(c.blocks, k.words.blocks[0])
	})
}

// onlyParts reports whether every partition of the reading divides the parts of a fused matrix.
func (r *reading) onlyParts() bool {
	return !slices.ContainsFunc(r.members, func(k knownPartition) bool { return !k.parts })
}

// verdict is the oracle's answer for a weight under a stored scale.
type verdict struct {
	readings []reading // that fit
	chosen   *reading  // nil: it must be refused
	says     string    // words of the refusal
}

// names lists the partitions that fit.
func (v *verdict) names() string {
	var all []string
	for _, r := range v.readings {
		var same []string
		for _, k := range r.members {
			same = append(same, k.name)
		}
		all = append(all, strings.Join(same, " = "))
	}
	return strings.Join(all, ", or ")
}

// scalesOf returns the position of the scale of each element. All partitions of the reading agree
// on it.
func (w *tableWeight) scalesOf(r *reading, stored []int64) []int64 {
	return w.positions(&r.members[0], stored)
}

// readingsOf groups the partitions that fit by their bytes.
func (w *tableWeight) readingsOf(all []knownPartition, stored []int64) (out []reading) {
	var maps [][]int64 // of the readings
	for _, k := range all {
		if !w.fits(&k, stored) {
			continue
		}
		at := w.positions(&k, stored)
		if i := slices.IndexFunc(maps, func(other []int64) bool {
			return slices.Equal(other, at)
		}); i >= 0 {
			out[i].members = append(out[i].members, k)
		} else {
			out, maps = append(out, reading{[]knownPartition{k}}), append(maps, at)
		}
	}
	return out
}

// judge applies the rules. Exactly one reading must remain. The configuration breaks ties.
func (w *tableWeight) judge(c words, dtype string, stored []int64) (v verdict) {
	if dtype == "U8" && len(stored) == 1 && stored[0] != 1 {
		v.says = "swizzled"
		return v
	}
	v.readings = w.readingsOf(w.known(c), stored)
	if len(v.readings) == 1 && v.readings[0].members[0].larger {
		// No program makes groups in a row under configured blocks, so such a grid is not a
		// larger grid.
		var groups []knownPartition
		for _, b := range listedBlocks {
			if b[0] == 1 {
				groups = append(groups, w.blocked(b, nil))
			}
		}
		v.readings = append(v.readings, w.readingsOf(groups, stored)...)
	}
	left := v.readings
	if len(left) > 1 {
		named := slices.DeleteFunc(slices.Clone(left),
			func(r reading) bool { return !r.namedBy(c) })
		if len(named) == 1 {
			left = named
		}
	}
	switch {
	case len(left) == 0:
		v.says = "in no known way"
	case len(left) > 1:
		v.says = "in several ways"
	case left[0].onlyParts() && !w.given:
		v.says = "only as"
	case left[0].onlyParts() && len(w.shape) == 3:
		v.says = "is not decoded"
	default:
		v.chosen = &left[0]
	}
	return v
}
