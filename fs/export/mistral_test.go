package export

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// An export in Mistral's own layout ends with the files that its readers begin with.
func TestExportsOfMistralsLayoutEndWithItsConfiguration(t *testing.T) {
	const golden = "../../testdata/golden/formats/mistral_native"
	view := layout("", "hf", safetensors.F16)
	view.ShardSize = 12 << 10
	f := openViews(t, golden, view)
	dir := filepath.Join(t.TempDir(), "export")
	m, err := Write(context.Background(), f, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, last := m.order()
	if len(last) != 2 || last[0].Name != mistralIndexName || last[1].Name != paramsName {
		t.Errorf("an export ends with %+v", last)
	}
	found, err := Verify(context.Background(), dir, VerifyOptions{})
	if err != nil || len(found.Differences) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
}
