package adapter

import (
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

func TestFingerprintTellsCheckpointsApart(t *testing.T) {
	fingerprint := func(o synth.Options) string {
		t.Helper()
		f, err := opened(t, synth.DeepSeek(o)).Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	uneven := synth.Options{Experts: 5, Hidden: 200, ExpertIntermediate: 100, MTP: 1, Shards: 3,
		ScalesApart: true}
	resharded, otherValues := uneven, uneven
	resharded.Shards, resharded.ScalesApart = 1, false
	otherValues.Seed++
	want := fingerprint(uneven)
	if fingerprint(uneven) != want || fingerprint(resharded) != want {
		t.Error("the fingerprint depends on where the tensors are")
	}
	if fingerprint(otherValues) == want {
		t.Error("a checkpoint of the same shapes has the same fingerprint")
	}
}
