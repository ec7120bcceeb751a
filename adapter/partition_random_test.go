package adapter

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// oneOf picks an element.
func oneOf[T any](rng *rand.Rand, all ...T) T { return all[rng.IntN(len(all))] }

// randomWeight returns a small weight. Small blocks over small shapes are ambiguous far more often
// than those of published checkpoints.
func randomWeight(rng *rand.Rand, tiny bool) *tableWeight {
	size := func() int64 {
		if tiny {
			return 1 + rng.Int64N(9)
		}
		return oneOf[int64](rng, 1, 2, 3, 31, 32, 33, 64, 65, 127, 128, 129, 200)
	}
	w := &tableWeight{key: "x.weight", shape: []int64{size(), size()}}
	if rng.IntN(3) == 0 {
		w.shape = slices.Insert(w.shape, 0, 1+rng.Int64N(4))
	}
	if rng.IntN(8) == 0 {
		w.family = "deepseek_v3"
	}
	if _, rows, _ := w.matrix(); rng.IntN(3) == 0 && rows > 1 {
		first := 1 + rng.Int64N(rows-1)
		w.parts, w.given = []int64{first, rows - first}, rng.IntN(4) > 0
	}
	return w
}

// randomWords returns a possible configuration.
func randomWords(rng *rand.Rand, tiny bool) words {
	c := words{tensor: rng.IntN(3) == 0, channel: rng.IntN(3) == 0}
	for range rng.IntN(3) {
		b := listedBlocks[rng.IntN(len(listedBlocks))]
		if tiny {
			b = [2]int64{1 + rng.Int64N(5), 1 + rng.Int64N(5)}
		}
		if !slices.Contains(c.blocks, b) {
			c.blocks = append(c.blocks, b)
		}
	}
	return c
}

// randomStored returns the grid of some partition in some spelling, possibly damaged, or any shape.
func (w *tableWeight) randomStored(rng *rand.Rand, c words) (stored []int64) {
	if rng.IntN(10) == 0 {
		for range rng.IntN(5) {
			stored = append(stored, 1+rng.Int64N(9))
		}
		return stored
	}
	known := w.known(c)
	stored = slices.Clone(oneOf(rng, w.spellings(&known[rng.IntN(len(known))])...))
	if len(stored) > 0 && rng.IntN(4) == 0 {
		stored[rng.IntN(len(stored))] += oneOf[int64](rng, 1, 2)
	}
	return stored
}

// asKnown writes out a decision of findPartition.
func (w *tableWeight) asKnown(p partition) knownPartition {
	switch {
	case p.shared:
		_, rows, cols := w.matrix()
		return knownPartition{shared: true, rows: make([]int64, rows), cols: make([]int64, cols)}
	case p.larger:
		return w.padded(p.block)
	}
	return w.blocked(p.block, p.parts)
}

// Random shapes, scales and configurations are compared with the oracle.
func TestRandomPartitionsAgreeWithTheOracle(t *testing.T) {
	t.Parallel()
	for seed, draws := range []int{30000, 2000} {
		tiny := seed == 0
		rng := rand.New(rand.NewPCG(uint64(seed), 14))
		counts := met{}
		for range draws {
			w, c := randomWeight(rng, tiny), randomWords(rng, tiny)
			stored := w.randomStored(rng, c)
			v := w.judge(c, "F32", stored)
			counts[v.says]++
			f := fusion{}
			if w.parts != nil {
				f.parts = [][]int64{w.parts}
			}
			if w.parts != nil && !w.given {
				f.missing = "it is fused"
			}
			p, err := findPartition(w.shape, stored,
				&scheme{blocks: c.blocks, tensor: c.tensor, channel: c.channel}, f, w.family != "")
			what := fmt.Sprintf("seed %d: %s, parts %v, under %v, configured %v",
				seed, w.describe(), w.parts, stored, c)
			switch {
			case err != nil && v.chosen != nil:
				t.Fatalf("%s: %v; it fits %s", what, err, v.names())
			case err == nil && v.chosen == nil:
				t.Fatalf("%s: %v; it fits %s: %s", what, p, v.names(), v.says)
			case err == nil:
				if k := w.asKnown(p); !slices.Equal(w.positions(&k, stored),
					w.scalesOf(v.chosen, stored)) {
					t.Fatalf("%s: %v; it fits %s", what, p, v.names())
				}
			}
		}
		for _, says := range []string{"", "in no known way", "in several ways"} {
			if counts[says] < draws/100 {
				t.Errorf("seed %d: %d of %d draws are %q, expected more",
					seed, counts[says], draws, says)
			}
		}
		t.Logf("seed %d: %d draws: %d right; refused: %d fit in no known way, %d in several "+
			"ways, %d only as parts that are not given, %d as parts of a stack",
			seed, draws, counts[""], counts["in no known way"], counts["in several ways"],
			counts["only as"], counts["is not decoded"])
	}
}
