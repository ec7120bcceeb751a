package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// usualNames are the files that are looked for on a server that lists no folders: those of a model
// and those that loaders read beside it.
var usualNames = []string{
	"config.json", "params.json", "generation_config.json",
	"model.safetensors", "consolidated.safetensors",
	"hf_quant_config.json", "quantize_config.json", "quant_config.json", "quantization_config.json",
	"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tokenizer.model.v3",
	"tokenizer.model.v7", "tiktoken.model", "tekken.json", "special_tokens_map.json",
	"added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
	"sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json",
	"preprocessor_config.json", "processor_config.json", "image_processor_config.json",
	"video_preprocessor_config.json", "feature_extractor_config.json",
	"README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "USE_POLICY.md",
}

// indexNames are the files that name the shards.
var indexNames = []string{"model.safetensors.index.json", "consolidated.safetensors.index.json"}

// codeConfigs are the files that name Python files.
var codeConfigs = []string{"config.json", "tokenizer_config.json", "processor_config.json",
	"preprocessor_config.json"}

// Bounds of what names other files.
const (
	mostNaming = 128 << 20 // bytes of a file
	mostFiles  = 5000      // of a folder
)

// probe looks for the usual files, and for those that they name.
func (h *https) probe(ctx context.Context) ([]object, error) {
	names := slices.Concat(usualNames, indexNames)
	if h.single != "" && !slices.Contains(names, h.single) {
		names = append(names, h.single)
	}
	how, err := h.absence(ctx)
	if err != nil {
		return nil, err
	}
	found, err := h.pinAll(ctx, files(names), how)
	if err != nil {
		return nil, err
	}
	more := map[string]bool{}
	for i := range found {
		if err := h.addNamed(ctx, &found[i], more); err != nil {
			return nil, fmt.Errorf("%s: %w", found[i].name, err)
		}
	}
	for _, name := range names {
		delete(more, name)
	}
	if len(more) > mostFiles {
		return nil, fmt.Errorf("more than %d files are named: not a checkpoint", mostFiles)
	}
	named, err := h.pinAll(ctx, files(slices.Sorted(maps.Keys(more))), how)
	return slices.Concat(found, named), err
}

func files(names []string) []entry {
	list := make([]entry, len(names))
	for i, name := range names {
		list[i].name = name
	}
	return list
}

// addNamed adds the names of files that a file names.
func (h *https) addNamed(ctx context.Context, o *object, names map[string]bool) error {
	shards := slices.Contains(indexNames, o.name)
	if !shards && !slices.Contains(codeConfigs, o.name) || o.refused != nil || o.size == 0 {
		return nil
	}
	var named struct {
		WeightMap map[string]string `json:"weight_map"`
		AutoMap   map[string]any    `json:"auto_map"`
	}
	if o.size > mostNaming {
		return fmt.Errorf("%d bytes: more than %d are not read", o.size, mostNaming)
	}
	data, err := h.readAll(ctx, o)
	if err != nil {
		return err
	}
	if json.Unmarshal(data, &named) != nil {
		return nil // the checkpoint's reader gives a better error
	}
	add := func(name string) {
		if isName(name) && !strings.HasPrefix(name, ".") {
			names[name] = true
		}
	}
	for _, name := range named.WeightMap {
		add(name)
	}
	for _, class := range classes(named.AutoMap) {
		if module, _, ok := strings.Cut(class, "."); ok && !strings.Contains(class, "--") {
			add(module + ".py")
		}
	}
	return nil
}

// classes lists the Python classes of an auto_map, which has texts and lists of texts.
func classes(auto map[string]any) (list []string) {
	for _, v := range auto {
		all, ok := v.([]any)
		if !ok {
			all = []any{v}
		}
		for _, c := range all {
			if s, ok := c.(string); ok {
				list = append(list, s)
			}
		}
	}
	return list
}

// readAll reads a small file.
func (h *https) readAll(ctx context.Context, o *object) (data []byte, err error) {
	err = persist(ctx, func() error {
		a, err := h.get(ctx, o, 0, o.size)
		if err != nil {
			return err
		}
		defer a.Body.Close()
		if err := compare(a, o, 0, o.size); err != nil {
			return err
		}
		data = make([]byte, o.size)
		if _, err = io.ReadFull(a.Body, data); err != nil {
			return &delay{err: clean(err)}
		}
		return nil
	})
	return data, err
}
