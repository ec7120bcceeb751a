package safetensors_test

import (
	"bytes"
	"fmt"
	"log"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

func ExampleNewHeader() {
	// NewHeader computes sizes and offsets from dtype and shape. The data begins at a multiple of
	// 64.
	h, encoded, err := safetensors.NewHeader([]safetensors.Tensor{
		{Name: "scale", DType: safetensors.F32, Shape: []int64{1, 2}},
		{Name: "weight", DType: safetensors.F8E4M3, Shape: []int64{3, 200}},
	}, map[string]string{"format": "pt"}, 64)
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range h.Tensors {
		fmt.Println(t.Name, t.Begin, t.End)
	}
	fmt.Println(h.DataOffset, len(encoded)%64)
	// Output:
	// scale 0 8
	// weight 8 608
	// 192 0
}

func ExampleReadHeader() {
	_, encoded, err := safetensors.NewHeader([]safetensors.Tensor{
		{Name: "weight", DType: safetensors.BF16, Shape: []int64{2, 3}},
	}, nil, 8)
	if err != nil {
		log.Fatal(err)
	}
	file := append(encoded, make([]byte, 12)...)

	h, err := safetensors.ReadHeader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		log.Fatal(err)
	}
	t := h.Tensors[0]
	fmt.Println(t.Name, t.DType, t.Shape, t.End-t.Begin)

	_, err = safetensors.ReadHeader(bytes.NewReader(file), int64(len(file))-1)
	fmt.Println(err)
	// Output:
	// weight BF16 [2 3] 12
	// tensor "weight": ends at byte 12 of the data, the file has 11: it is truncated
}

func ExampleParseIndex() {
	x, err := safetensors.ParseIndex([]byte(`{
		"metadata": {"total_size": 12},
		"weight_map": {"weight": "model-00001-of-00001.safetensors"}
	}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(x.Metadata["total_size"], x.WeightMap["weight"])
	// Output: 12 model-00001-of-00001.safetensors
}
