package adapter

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Mistral publishes models in a layout of its own: consolidated*.safetensors with Mistral's own
// keys, and params.json in place of config.json. A folder without a config.json is read that way. A
// folder with one holds the same model in the format of transformers, which is shown.

const (
	paramsName  = "params.json"
	mistralStem = "consolidated"
	modelStem   = "model"
)

// IsMistral reports whether the checkpoint is in Mistral's own layout.
func (c *Checkpoint) IsMistral() bool { return c.mistral }

// Stem returns the beginning of the names of shards and of their index in views of the checkpoint.
// It is "model", and "consolidated" in Mistral's own layout, because its readers look for that.
func (c *Checkpoint) Stem() string {
	if c.mistral {
		return mistralStem
	}
	return modelStem
}

// isMistral reports whether the folder is in Mistral's own layout.
func (d *folder) isMistral() bool {
	return !d.has(configName) && d.has(paramsName) && !slices.ContainsFunc(d.weights(),
		func(name string) bool { return !strings.HasPrefix(name, mistralStem) }) &&
		len(d.weights()) > 0
}

// openMistral opens all files of a folder in Mistral's own layout.
func (c *Checkpoint) openMistral(d *folder) error {
	c.mistral = true
	if err := c.openParams(d); err != nil {
		return err
	}
	if err := c.openQuantize(d); err != nil {
		return err
	}
	model, err := d.selectMistral()
	if err != nil {
		return err
	}
	d.warnLeftOut(model)
	if err := c.openShards(d, model); err != nil {
		return err
	}
	c.openSide(d)
	return nil
}

// openParams reads params.json and takes the quantization from it.
func (c *Checkpoint) openParams(d *folder) error {
	params, err := d.config(paramsName)
	if err != nil {
		return err
	}
	all, err := members(params.Raw)
	if err != nil {
		return fmt.Errorf("%s: %w", paramsName, err)
	}
	for _, m := range all {
		if ofQuantization(m.key) && len(m.value) > 0 && m.value[0] == '{' {
			c.describe(paramsName, m.value)
		}
	}
	return nil
}

// selectMistral chooses the shards: one file, those of the index, or those whose names go together.
func (d *folder) selectMistral() (*selection, error) {
	const whole, index = mistralStem + shardEnd, mistralStem + indexEnd
	switch {
	case d.has(whole):
		return &selection{shards: []string{whole}, reason: whole + " is the whole model"},
			d.present([]string{whole}, nil)
	case d.has(index):
		return d.selectByIndex(index, index+" does not list it")
	}
	names := d.weights()
	slices.SortFunc(names, natural)
	return &selection{shards: names}, d.present(withSiblings(names), nil)
}

// onlyHF refuses all layouts but "hf" for a checkpoint in Mistral's own layout.
func (p *planner) onlyHF() error {
	if !p.c.mistral || p.o.Layout == LayoutHF {
		return nil
	}
	if _, ok := layoutNamed(p.o.Layout); !ok {
		return nil // which is another error
	}
	return fmt.Errorf("%s: without %s the checkpoint is in Mistral's own layout, which does not "+
		"have the names that layout %s needs: give --layout %s, or the same model in the format "+
		"of transformers", paramsName, configName, p.o.Layout, LayoutHF)
}

// findParams reads a params.json that speaks of the quantization. Views show it without that. Any
// other one is a side file.
func (c *Checkpoint) findParams(d *folder) {
	if !d.has(paramsName) {
		return
	}
	read := len(d.read)
	params, err := d.config(paramsName)
	if err != nil || !speaksOfQuantization(params.Raw) {
		d.read = d.read[:read]
		return
	}
	c.params = params.Raw
}

// speaksOfQuantization reports whether a configuration has fields about a quantization.
func speaksOfQuantization(raw []byte) (speaks bool) {
	var look edit
	look = func(key string, value json.RawMessage) (json.RawMessage, error) {
		speaks = speaks || ofQuantization(key)
		return rewriteValue(value, look)
	}
	_, err := rewriteObject(raw, look)
	return speaks && err == nil
}

// rewriteParams gives the view's params.json, nil if it is a side file or there is none.
func (p *planner) rewriteParams() ([]byte, error) {
	if p.c.params == nil {
		return nil, nil
	}
	var scrub edit
	scrub = func(key string, value json.RawMessage) (json.RawMessage, error) {
		if ofQuantization(key) {
			return nil, nil
		}
		return rewriteValue(value, scrub)
	}
	raw, err := rewriteObject(p.c.params, scrub)
	if err == nil {
		raw, err = indentJSON(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", paramsName, err)
	}
	return append(raw, '\n'), nil
}
