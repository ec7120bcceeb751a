package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

func TestErrorsOfHeadersHaveKinds(t *testing.T) {
	const one = `{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`
	for _, c := range []struct {
		header string
		data   int
		want   error
	}{
		{one, 4, nil},
		{one, 3, safetensors.ErrTruncated},
		{one, 5, safetensors.ErrDamaged},
		{`{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}`, 5, safetensors.ErrDamaged},
		{`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,4]}}`, 4, safetensors.ErrDamaged},
		{`{"a":}`, 4, safetensors.ErrDamaged},
	} {
		file := binary.LittleEndian.AppendUint64(nil, uint64(len(c.header)))
		file = append(append(file, c.header...), make([]byte, c.data)...)
		_, err := safetensors.ReadHeader(bytes.NewReader(file), int64(len(file)))
		for _, kind := range []error{safetensors.ErrTruncated, safetensors.ErrDamaged} {
			if errors.Is(err, kind) != (kind == c.want) {
				t.Errorf("%s and %d bytes: %v is %v", c.header, c.data, err, kind)
			}
		}
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s and %d bytes: %v", c.header, c.data, err)
		}
	}
	cut := binary.LittleEndian.AppendUint64(nil, 100)
	_, err := safetensors.ReadHeader(bytes.NewReader(cut), 8)
	if !errors.Is(err, safetensors.ErrTruncated) {
		t.Errorf("a header that is cut: %v", err)
	}
}
