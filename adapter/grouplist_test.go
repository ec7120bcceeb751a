package adapter

import (
	"encoding/binary"
	"math"
	"testing"
)

func TestListsOfGroupsAreExamined(t *testing.T) {
	for name, x := range map[string]struct {
		list []int32
		want groupList
	}{
		"empty":            {nil, groupList{}},
		"one group":        {[]int32{0, 0, 0}, groupList{0, 0, 3, 3}},
		"single rows":      {[]int32{0, 1, 2}, groupList{0, 2, 1, 1}},
		"whole groups":     {[]int32{0, 0, 1, 1}, groupList{0, 1, 2, 2}},
		"a short group":    {[]int32{0, 0, 1, 1, 2}, groupList{0, 2, 2, 0}},
		"a longer group":   {[]int32{0, 0, 1, 1, 1}, groupList{0, 1, 0, 0}},
		"another order":    {[]int32{1, 1, 0, 0}, groupList{0, 1, 0, 2}},
		"a group left out": {[]int32{0, 0, 2, 2}, groupList{0, 2, 0, 0}},
		"the ends":         {[]int32{0, math.MinInt32, math.MaxInt32}, groupList{math.MinInt32, math.MaxInt32, 0, 0}},
		"never group 0":    {[]int32{1, 1}, groupList{0, 1, 0, 0}},
	} {
		var raw []byte
		for _, g := range x.list {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(g))
		}
		if got := groupListOf(raw); got != x.want {
			t.Errorf("%s: %+v, want %+v", name, got, x.want)
		}
	}
}
