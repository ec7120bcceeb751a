package export

import "testing"

func TestViewsOfAnExportAreNamedByTheirFlags(t *testing.T) {
	plain := ViewRecord{Layout: "hf", DType: "BF16", MTP: "auto", Scales: "amax"}
	every := ViewRecord{
		Dir: "native/rank-1-of-4", Layout: "native", DType: "F32", Rank: 1, Ranks: 4, MTP: "drop",
		Include: "^(?:a)", Exclude: "^(?:a b)", Scales: "ones", Cast: "all", Unscaled: true, ShardSize: 5e9,
	}
	for _, test := range []struct {
		views []ViewRecord
		want  string
	}{
		{[]ViewRecord{plain}, "--layout hf --dtype bf16"},
		{[]ViewRecord{every}, "--layout native --dtype f32 --cast all --ep 1/4 --mtp drop " +
			`--include "^(?:a)" --exclude "^(?:a b)" --scales ones --unscaled ` +
			"--shard-size 5000000000B in native/rank-1-of-4"},
		{[]ViewRecord{plain, plain}, "--layout hf --dtype bf16 and --layout hf --dtype bf16"},
	} {
		if got := flagsOf(test.views); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}
