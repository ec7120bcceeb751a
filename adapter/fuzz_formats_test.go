package adapter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/synth"
)

// FuzzPlanOfFormats mutates the configuration and the only shard of a small checkpoint of each
// format. Opening and planning must end in an error, or in views that can be read whole.
func FuzzPlanOfFormats(f *testing.F) {
	for _, s := range soundFormats() {
		dir := f.TempDir()
		c := &synth.Checkpoint{Single: true, Tensors: s.tensors}
		if err := c.Write(dir); err != nil {
			f.Fatal(err)
		}
		shard, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(`{"quantization_config": `+s.config+`}`), shard)
	}
	f.Fuzz(func(t *testing.T, config, shard []byte) { planAndRead(t, config, shard) })
}

// readWhole reads a tensor, or both its ends if it is large.
func readWhole(t *testing.T, x Tensor) {
	t.Helper()
	n := min(x.Node.Size(), 1<<16)
	for _, off := range []int64{0, x.Node.Size() - n} {
		if err := x.Node.ReadAt(nil, make([]byte, n), off); err != nil {
			t.Errorf("%s: %d bytes at %d: %v", x.Name, n, off, err)
		}
	}
}

// FuzzConfigurationOfFormats reads any description of a quantization. It must end, in a rule for
// each weight or in an error of one short line.
func FuzzConfigurationOfFormats(f *testing.F) {
	for _, s := range soundFormats() {
		f.Add([]byte(s.config))
	}
	for _, config := range []string{block128, ctBlock, ctChannel, ctMixed,
		`{"bits": 4, "group_size": -1, "dynamic": {"-:.*v_proj": {}, "+:.*down": {"bits": 8}}}`,
		`{"quant_method": "auto-round", "extra_config": {"a.b": {"bits": 16}}, "packing_format": "x"}`,
		`{"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a.*": {"quant_algo": "NVFP4"}}}`} {
		f.Add([]byte(config))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		s, err := parseSettings(append(append([]byte(`{"quantization_config": `), config...), '}'))
		if err != nil {
			return
		}
		c := &Checkpoint{}
		q, err := readQuantization(c, s)
		if err == nil {
			err = refuseConfigured(c, q, s)
		}
		if err == nil {
			var words *qweightConfig
			if words, err = q.qweight(c); err == nil {
				words.schemesOf(hostileModule)
			}
		}
		if err != nil {
			if m := err.Error(); len(m) > 1000 || strings.ContainsAny(m, "\n\x00") {
				t.Errorf("no message: %q", m)
			}
			return
		}
		q.floats.schemeOf(hostileModule + ".weight")
	})
}
