package adapter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// partition says which elements of a weight share a scale. A weight is a matrix or a stack of
// matrices. All matrices of a stack are divided in the same way.
type partition struct {
	// block is the rows and columns under one scale; 0 is the whole axis.
	block [2]int64
	// parts are the rows of each part of a fused matrix. Blocks start again in each part. nil: the
	// matrix is not fused.
	parts []int64
	// shared: all matrices of a stack have the same grid.
	shared bool
	// larger: the grid may have more rows and columns than needed. The top left part is used.
	larger bool
}

// The partitions without a size.
var (
	wholePartition  = partition{}
	rowPartition    = partition{block: [2]int64{1, 0}}
	columnPartition = partition{block: [2]int64{0, 1}}
	sharedPartition = partition{shared: true}
	knownBlocks     = [][2]int64{
		{128, 128}, {64, 64}, {32, 32}, {1, 128}, {1, 64}, {1, 32}, {1, 512},
	}
)

// isWholeScale reports whether the shape of a scale is that of a single number: [], [1], [1, 1] or
// [1, 1, 1].
func isWholeScale(shape []int64) bool {
	return len(shape) <= 3 && !slices.ContainsFunc(shape, func(n int64) bool { return n != 1 })
}

// String returns the name of the partition for messages and summaries.
func (p partition) String() string {
	name := p.divides()
	switch {
	case len(p.parts) > 0 && p.block == [2]int64{}:
		name = fmt.Sprintf("one scale per part of %d", len(p.parts))
	case len(p.parts) > 0:
		name += fmt.Sprintf(" in each of %d parts", len(p.parts))
	case p.shared:
		name = "one scale per tensor"
	}
	if p.larger {
		name += " (top left of a larger grid)"
	}
	return name
}

func (p partition) divides() string {
	switch {
	case p.block == [2]int64{}:
		return "one scale per matrix"
	case p.block == rowPartition.block:
		return "one scale per row"
	case p.block == columnPartition.block:
		return "one scale per column"
	case p.block[0] == 1:
		return fmt.Sprintf("groups of %d in a row", p.block[1])
	}
	return fmt.Sprintf("blocks of %d × %d", p.block[0], p.block[1])
}

// frame is a weight's shape as a partition sees it: matrices of rows × cols.
type frame struct {
	shape      []int64 // as stored
	stack      bool    // an axis of matrices comes before rows and columns
	count      int64   // of matrices
	rows, cols int64
}

// frameOf returns the frame of a shape. A tensor of two or three axes is a matrix or a stack.
// Another tensor is a matrix: its first axis by all others.
func frameOf(shape []int64) frame {
	f := frame{shape: shape, count: 1, rows: 1, cols: 1}
	switch n := len(shape); n {
	case 0:
	case 1:
		f.cols = shape[0]
	case 3:
		f.stack, f.count, f.rows, f.cols = true, shape[0], shape[1], shape[2]
	default:
		f.rows, f.cols = shape[0], product(shape[1:])
	}
	return f
}

// regular reports whether the weight is a matrix or a stack of matrices.
func (f frame) regular() bool { return len(f.shape) == 2 || len(f.shape) == 3 }

// grid returns the rows and columns of the grid of scales that the partition needs.
func (f frame) grid(p partition) [2]int64 {
	parts := p.parts
	if parts == nil {
		parts = []int64{f.rows}
	}
	var rows int64
	for _, n := range parts {
		rows += blocksIn(n, p.block[0])
	}
	return [2]int64{rows, blocksIn(f.cols, p.block[1])}
}

// blocksIn returns the number of blocks in an axis of size n.
func blocksIn(n, block int64) int64 {
	if block == 0 {
		return min(n, 1)
	}
	return ceilDiv(n, block)
}

func ceilDiv(a, b int64) int64 { return a/b + min(a%b, 1) }

func product(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

// scaleForms are the possible readings of a stored scale's shape as a grid for each matrix.
type scaleForms struct {
	whole  bool       // one number for everything
	each   bool       // one number for each matrix of a stack
	grids  [][2]int64 // rows and columns of each matrix's grid
	vector int64      // length of a list for each matrix, if the other axis is omitted; otherwise 0
	plain  bool       // the grids are stored without further axes
}

// forms reads the shape of a scale. Exporters insert axes of one element, as in [m, 1, n, 1]. They
// also omit them: [m] means [m, 1], and [] or [1] means [1, 1].
func (f frame) forms(scale []int64) scaleForms {
	forms := scaleForms{whole: isWholeScale(scale)}
	if !f.regular() {
		if len(scale) == len(f.shape) && len(scale) > 0 && product(scale[1:]) == 1 {
			forms.grids = [][2]int64{{scale[0], 1}}
		}
		return forms
	}
	rest := scale
	if f.stack {
		if len(scale) == 0 || scale[0] != f.count {
			return forms
		}
		rest = scale[1:]
		forms.each = product(rest) == 1 && len(rest) <= 2
	}
	switch len(rest) {
	case 1:
		forms.vector = rest[0]
	case 2:
		forms.grids, forms.plain = [][2]int64{{rest[0], rest[1]}}, true
	case 3:
		forms.grids = withoutOne(rest)
	case 4:
		if rest[1] == 1 && rest[3] == 1 {
			forms.grids = [][2]int64{{rest[0], rest[2]}}
		}
	}
	return forms
}

// withoutOne removes an axis of size one from three axes, in every possible way.
func withoutOne(axes []int64) (grids [][2]int64) {
	for i, n := range axes {
		if n != 1 {
			continue
		}
		left := slices.Delete(slices.Clone(axes), i, i+1)
		if g := [2]int64{left[0], left[1]}; !slices.Contains(grids, g) {
			grids = append(grids, g)
		}
	}
	return grids
}

// fits reports whether a scale with these forms can have the partition.
func (f frame) fits(p partition, s scaleForms) bool {
	need := f.grid(p)
	switch {
	case p.larger:
		return s.plain && slices.ContainsFunc(s.grids, func(g [2]int64) bool {
			return g != need && g[0] >= need[0] && g[1] >= need[1] && need[0] > 0 && need[1] > 0
		})
	case p.shared:
		return s.whole
	case (need == [2]int64{1, 1} || p.isWhole()) && (s.each || s.whole && !f.stack):
		return true
	case s.vector > 1 && f.lists(p):
		return s.vector == need[0]*need[1]
	}
	return slices.Contains(s.grids, need)
}

// isWhole reports whether one scale covers a whole matrix, even an empty one.
func (p partition) isWhole() bool {
	return p.block == wholePartition.block && p.parts == nil
}

// lists reports whether exporters omit an axis of the partition's grid. They never do for blocks. A
// list for a matrix has one number per row or part. For a stack it may also have one number per
// column.
func (f frame) lists(p partition) bool {
	switch p.block {
	case rowPartition.block:
		return true
	case columnPartition.block:
		return f.stack
	}
	return len(p.parts) > 0 && p.block == wholePartition.block
}

// same reports whether two partitions that fit a scale apply it to the same elements.
func (f frame) same(p, q partition) bool {
	if p.larger != q.larger || p.shared != q.shared && f.count != 1 ||
		blockIn(f.cols, p.block[1]) != blockIn(f.cols, q.block[1]) {
		return false
	}
	if p.parts == nil && q.parts == nil {
		return blockIn(f.rows, p.block[0]) == blockIn(f.rows, q.block[0])
	}
	return slices.Equal(f.heights(p), f.heights(q))
}

// blockIn returns the size of a block in an axis of size n. It is 0 if one block covers the axis.
func blockIn(n, block int64) int64 {
	if block >= n {
		return 0
	}
	return block
}

// heightRun is a run of grid rows of equal height.
type heightRun struct{ height, count int64 }

// heights returns the number of matrix rows under each grid row, from the top. Equal heights are
// counted, because a header can declare more rows than fit into memory.
func (f frame) heights(p partition) (runs []heightRun) {
	add := func(height, count int64) {
		switch last := len(runs) - 1; {
		case height == 0 || count == 0:
		case last >= 0 && runs[last].height == height:
			runs[last].count += count
		default:
			runs = append(runs, heightRun{height, count})
		}
	}
	if p.parts == nil {
		p.parts = []int64{f.rows}
	}
	for _, n := range p.parts {
		height := min(cmp.Or(p.block[0], n), n)
		if height > 0 {
			add(height, n/height)
			add(n%height, 1)
		}
	}
	return runs
}

// candidates returns the partitions that the scale of a weight may have.
func (f frame) candidates(s *scheme, fused fusion, larger bool) []partition {
	all := []partition{wholePartition, rowPartition}
	if f.stack {
		all = append(all, sharedPartition)
	}
	if !f.regular() {
		return all
	}
	all = append(all, columnPartition)
	blocks := s.blocksOr(knownBlocks)
	for _, b := range blocks {
		all = append(all, partition{block: b})
	}
	for _, parts := range fused.parts {
		all = append(all, partition{parts: parts})
		for _, b := range blocks {
			all = append(all, partition{block: b, parts: parts})
		}
	}
	if larger {
		for _, b := range s.blocksOr([][2]int64{{BlockSize, BlockSize}}) {
			all = append(all, partition{block: b, larger: true})
		}
	}
	return all
}

// blocksOr returns the configured blocks, or others if there are none.
func (s *scheme) blocksOr(others [][2]int64) [][2]int64 {
	if len(s.blocks) == 0 {
		return others
	}
	return s.blocks
}

// findPartition returns the partition of a scale over a weight. The scale must fit exactly one
// partition, or several that give the same bytes. If several fit, the configuration decides.
func findPartition(w, scale []int64, s *scheme, fused fusion, larger bool) (partition, error) {
	if p, ok := s.usual(w, scale, fused); ok {
		return p, nil
	}
	f := frameOf(w)
	forms := f.forms(scale)
	all := f.candidates(s, fused, larger)
	fitting := slices.DeleteFunc(slices.Clone(all),
		func(p partition) bool { return !f.fits(p, forms) })
	fits := f.distinct(fitting)
	if len(fits) == 1 && fits[0].larger {
		fits = append(fits, f.others(forms, s)...)
	}
	if named := f.named(fits, fitting, s); len(fits) > 1 && len(named) == 1 {
		fits = named
	}
	switch {
	case len(fits) == 0:
		return partition{}, f.noneFits(scale, s, all, fused)
	case len(fits) > 1:
		return partition{}, fmt.Errorf("scales %v fit weight %v in several ways: %s; %s",
			scale, w, joinNames(fits), s.wayOut())
	}
	return fits[0], f.checkParts(fits[0], scale, fused)
}

// checkParts refuses a partition in parts that the configuration does not give, or over a stack.
func (f frame) checkParts(p partition, scale []int64, fused fusion) error {
	switch {
	case len(p.parts) > 0 && fused.missing != "":
		return fmt.Errorf("scales %v fit weight %v only as %s%s", scale, f.shape, p, fused.note())
	case len(p.parts) > 0 && f.stack:
		return fmt.Errorf("scales %v over the stack %v: %s is not decoded", scale, f.shape, p)
	}
	return nil
}

// named keeps the partitions that the configuration names, directly or by another with the same
// bytes.
func (f frame) named(fits, fitting []partition, s *scheme) (kept []partition) {
	for _, p := range fits {
		if slices.ContainsFunc(fitting, func(q partition) bool {
			return s.names(q) && f.same(p, q)
		}) {
			kept = append(kept, p)
		}
	}
	return kept
}

// others returns the known blocks whose exact grid a larger grid is. Under configured blocks only
// groups in a row count, because those scales were not made in blocks.
func (f frame) others(forms scaleForms, s *scheme) (fits []partition) {
	for _, b := range knownBlocks {
		if p := (partition{block: b}); (b[0] == 1 || len(s.blocks) == 0) && f.fits(p, forms) {
			fits = append(fits, p)
		}
	}
	return fits
}

// usual answers for almost all weights: a matrix under exactly the grid of the only configured
// blocks. Unless the matrix is fused, no other partition gives other bytes with that grid.
func (s *scheme) usual(w, scale []int64, fused fusion) (p partition, ok bool) {
	if len(w) != 2 || len(scale) != 2 || len(s.blocks) != 1 || len(fused.parts) > 0 {
		return p, false
	}
	b := s.blocks[0]
	return partition{block: b}, scale[0] == ceilDiv(w[0], b[0]) && scale[1] == ceilDiv(w[1], b[1])
}

// distinct keeps one of several partitions that give the same bytes.
func (f frame) distinct(all []partition) (kept []partition) {
	for _, p := range all {
		if !slices.ContainsFunc(kept, func(q partition) bool { return f.same(p, q) }) {
			kept = append(kept, p)
		}
	}
	return kept
}

// noneFits returns an error that lists the scales that each partition needs.
func (f frame) noneFits(scale []int64, s *scheme, all []partition, fused fusion) error {
	needs := make([]string, 0, len(all))
	for _, p := range f.distinct(all) {
		if !p.larger && !p.shared {
			name := p.String()
			if len(needs) > 0 {
				name = strings.TrimPrefix(name, "one scale ")
			}
			needs = append(needs, fmt.Sprintf("%s %v", name, f.needed(p)))
		}
	}
	return fmt.Errorf("scales %v fit weight %v in no known way: expected %s%s; %s",
		scale, f.shape, strings.Join(needs, ", "), fused.note(), s.wayOut())
}

// needed returns the full shape of the scales that a partition needs.
func (f frame) needed(p partition) []int64 {
	g := f.grid(p)
	if !f.stack {
		return g[:]
	}
	return []int64{f.count, g[0], g[1]}
}

func joinNames[T fmt.Stringer](all []T) string {
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.String()
	}
	return strings.Join(names, ", or ")
}
