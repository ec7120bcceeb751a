package adapter

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
)

const (
	wholeName = "model.safetensors"
	indexName = wholeName + ".index.json"
	indexEnd  = ".safetensors.index.json"

	// explicitField is the field of config.json that names the file of weights, or the index.
	explicitField = "transformers_weights"
)

// selection is the files of a folder that form the model.
type selection struct {
	shards []string           // in natural order
	index  *safetensors.Index // maps tensors to shards; nil without an index
	name   string             // of the index
	reason string             // why other files of weights are left out
}

// selectionRules choose the files of the model, in this order. A rule that does not apply returns
// nil. The order is that of transformers, so that a view has the tensors that transformers would
// load.
var selectionRules = []func(d *folder, c *Config) (*selection, error){
	(*folder).selectExplicit, // config.json names a file
	(*folder).selectWhole,    // there is a model.safetensors
	(*folder).selectIndexed,  // there is a model.safetensors.index.json
	(*folder).selectNamed,    // by the names of the files
}

// selectShards chooses the files of the model and checks that all are present.
func (d *folder) selectShards(c *Config) (*selection, error) {
	for _, rule := range selectionRules {
		s, err := rule(d, c)
		if err != nil {
			return nil, err
		}
		if s != nil {
			d.warnLeftOut(s)
			return s, nil
		}
	}
	if err := d.noWeights(); err != nil {
		return nil, err
	}
	err := fmt.Errorf("no %s and no *%s", indexName, shardEnd)
	return nil, d.incomplete(kindError{err, source.ErrMissing})
}

// selectExplicit takes the file that config.json names, as transformers does.
func (d *folder) selectExplicit(c *Config) (*selection, error) {
	all, err := members(c.Raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", configName, err)
	}
	i := slices.IndexFunc(all, func(m member) bool { return m.key == explicitField })
	if i < 0 || string(all[i].value) == "null" {
		return nil, nil
	}
	name, err := unquote(all[i].value)
	if err != nil || !isString(all[i].value) {
		return nil, fmt.Errorf("%s: %s is not a string: expected the name of a file",
			configName, explicitField)
	}
	reason := fmt.Sprintf("%s says that the weights are in %s", configName, name)
	switch {
	case isFileName(name) && strings.HasSuffix(name, indexEnd):
		return d.selectByIndex(name, reason)
	case isShardName(name):
		return &selection{shards: []string{name}, reason: reason}, d.present([]string{name}, nil)
	}
	return nil, fmt.Errorf("%s: %s is %.100q: expected a *%s or a *%s file of the folder",
		configName, explicitField, name, shardEnd, indexEnd)
}

// selectWhole takes model.safetensors alone, because an index beside it usually belongs to older
// shards. An index that lists model.safetensors among several shards takes precedence.
func (d *folder) selectWhole(*Config) (*selection, error) {
	if !d.has(wholeName) || d.isFolder(wholeName) || d.dangling(wholeName) != nil {
		return nil, nil
	}
	s := &selection{shards: []string{wholeName}, reason: wholeName + " is the whole model"}
	if !d.has(indexName) {
		return s, nil
	}
	index, names, err := d.readIndex(indexName)
	if err != nil {
		d.logger.Warn("the index is not read: "+wholeName+" is the whole model", "error", err)
		return s, nil
	}
	switch {
	case slices.Contains(names, wholeName) && len(names) > 1:
		return &selection{shards: names, index: index, name: indexName,
			reason: indexName + " does not list it"}, d.present(names, index)
	case !slices.Contains(names, wholeName) && len(d.absent(names)) == 0:
		s.reason = fmt.Sprintf("transformers reads %s, though all shards of %s are present",
			wholeName, indexName)
	}
	return s, nil
}

// selectIndexed takes the shards of the index.
func (d *folder) selectIndexed(*Config) (*selection, error) {
	if !d.has(indexName) {
		return nil, nil
	}
	return d.selectByIndex(indexName, indexName+" does not list it")
}

// selectByIndex takes the shards of the named index.
func (d *folder) selectByIndex(name, reason string) (*selection, error) {
	index, names, err := d.readIndex(name)
	if err != nil {
		return nil, err
	}
	return &selection{shards: names, index: index, name: name, reason: reason},
		d.present(names, index)
}

// selectNamed takes all files that are not excluded by their names. A variant is the model only if
// there is no other file and no other variant.
func (d *folder) selectNamed(*Config) (*selection, error) {
	var names, variants []string
	tokens := map[string]bool{}
	for _, name := range d.weights() {
		switch token := variant(name); {
		case notTheModel(name) != "":
		case token != "":
			variants, tokens[token] = append(variants, name), true
		default:
			names = append(names, name)
		}
	}
	if len(names) == 0 && len(tokens) > 1 {
		return nil, fmt.Errorf("variants of the weights (%s), but neither %s nor %s: "+
			"give the one to show as SOURCE, as in %s",
			strings.Join(slices.Sorted(maps.Keys(tokens)), ", "), wholeName, indexName, variants[0])
	}
	if len(names) == 0 {
		names = variants
	}
	if len(names) == 0 {
		return nil, nil
	}
	slices.SortFunc(names, natural)
	return &selection{shards: names, reason: "a variant of the weights"},
		d.present(withSiblings(names), nil)
}

// weights returns the files of the folder that may be shards.
func (d *folder) weights() []string {
	return d.where(func(name string) bool { return isShardName(name) && !d.isFolder(name) })
}

// otherModels are files of weights, by the beginning of their names, that are not the model unless
// an index lists them.
var otherModels = []struct{ start, is, way string }{
	{"adapter_", "an adapter, not a model", "merge it into the model that it adapts"},
	{"consolidated", "the model in the format of Mistral",
		"use the same model in the format of transformers"},
}

// notTheModel describes a file of weights that is not the model, or returns "".
func notTheModel(name string) string {
	for _, o := range otherModels {
		if strings.HasPrefix(name, o.start) {
			return o.is
		}
	}
	return ""
}

// variants matches names such as model.fp16.safetensors, model.fp16-00001-of-00002.safetensors and
// model-00001-of-00002.fp16.safetensors. Only known words name a variant, so
// model.safetensors-00001-of-00002.safetensors is not one.
var variants = regexp.MustCompile(`^[^.]+(?:-\d+-of-\d+)?\.(` +
	`(?:no_|non_)?ema|half|` +
	`(?:nv|mx)?(?:fp|bf|f|float|bfloat|int|uint)\d+(?:_\w+)?|\d+bit` +
	`)(?:-\d+-of-\d+)?\.safetensors$`)

// variant returns the word that marks a name as a variant, or "".
func variant(name string) string {
	if m := variants.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

// warnLeftOut logs the files of weights that are not the model, one line for each reason.
func (d *folder) warnLeftOut(s *selection) {
	chosen := map[string]bool{}
	for _, name := range s.shards {
		chosen[name] = true
	}
	names := map[string][]string{}
	for _, name := range d.where(isShardName) {
		if chosen[name] || d.isFolder(name) {
			continue
		}
		reason := s.reason
		if !strings.HasPrefix(s.shards[0], mistralStem) {
			reason = cmp.Or(notTheModel(name), reason)
		}
		names[reason] = append(names[reason], name)
	}
	for _, reason := range slices.Sorted(maps.Keys(names)) {
		say := d.logger.Warn
		if strings.HasPrefix(names[reason][0], mistralStem) && reason != s.reason {
			say = d.logger.Info // such a file repeats tensors that the view has
		}
		say("weights left out: " + few(names[reason]) + ": " + reason)
	}
}

// few lists the first of several names and counts the others.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// readIndex reads an index and returns it with the names of its shards.
func (d *folder) readIndex(name string) (*safetensors.Index, []string, error) {
	raw, err := d.readFile(name, maxIndex)
	if err != nil {
		return nil, nil, err
	}
	index, err := safetensors.ParseIndex(raw)
	var names []string
	if err == nil {
		names, err = shardsOf(index)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, d.unlikeJSON(raw, err))
	}
	return index, names, nil
}

// shardsOf returns the shards of an index. A shard must be a file of the folder itself.
func shardsOf(index *safetensors.Index) ([]string, error) {
	shards := map[string]bool{} // maps the name of a shard to whether it is valid
	var bad []string            // keys with an invalid shard
	for key, name := range index.WeightMap {
		good, seen := shards[name]
		if !seen {
			good = isShardName(name)
			shards[name] = good
		}
		if !good {
			bad = append(bad, key)
		}
	}
	if len(bad) > 0 {
		first := slices.Min(bad)
		return nil, fmt.Errorf("tensor %.100q is listed in %.100q%s: "+
			"expected the name of a *%s file in the folder",
			first, index.WeightMap[first], andMore(len(bad)-1), shardEnd)
	}
	if len(shards) == 0 {
		return nil, errors.New("it lists no shards")
	}
	return slices.SortedFunc(maps.Keys(shards), natural), nil
}

// present checks that all shards are present. Its error counts the missing ones and estimates their
// size.
func (d *folder) present(names []string, index *safetensors.Index) error {
	absent := d.absent(names)
	if len(absent) == 0 {
		return nil
	}
	missing := &MissingShardsError{Missing: len(absent), Of: len(names)}
	if !slices.ContainsFunc(absent, func(name string) bool { return !d.has(name) }) {
		missing.err = d.incomplete(fmt.Errorf("%s: %w%s",
			absent[0], d.dangling(absent[0]), andMore(len(absent)-1)))
		return missing
	}
	size := ""
	if n := d.missingBytes(names, len(absent), index); n > 0 {
		size = ", about " + formatBytes(n)
	}
	are := "are"
	if len(absent) == 1 {
		are = "is"
	}
	err := fmt.Errorf("%d of %d shards %s missing%s: %s",
		len(absent), len(names), are, size, few(absent))
	missing.err = d.incomplete(kindError{err, source.ErrMissing})
	return missing
}

// MissingShardsError says that shards are not there, as during a download.
type MissingShardsError struct {
	Missing, Of int // how many of how many shards
	err         error
}

// Error says what is missing, and where.
func (m *MissingShardsError) Error() string { return m.err.Error() }

// Unwrap returns the error with the text and the kind.
func (m *MissingShardsError) Unwrap() error { return m.err }

// controlEnd is the ending of aria2's control file beside an unfinished download. The download
// itself has its full size from the beginning, with zeros in the gaps.
const controlEnd = ".aria2"

// finished refuses shards that a download has reserved and not filled.
func (d *folder) finished(names []string) error {
	var left []string
	for _, name := range names {
		if d.has(name + controlEnd) {
			left = append(left, name)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d shards are only partly downloaded, because a file *%s is beside "+
		"them: %s: run the download again", len(left), len(names), controlEnd, few(left))
}

// absent returns the names that the folder lacks or has only as dangling links.
func (d *folder) absent(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return d.has(name) && d.dangling(name) == nil
	})
}

// missingBytes estimates the size of the missing shards. It subtracts the present ones from the
// index's total, or else uses their average. It returns 0 if too few are present.
func (d *folder) missingBytes(names []string, absent int, index *safetensors.Index) int64 {
	var have int64
	files := 0
	for _, name := range names {
		if !d.has(name) {
			continue // do not ask the store for each of many
		}
		if n, ok := d.size(name); ok {
			have, files = have+n, files+1
		}
	}
	if total := totalSize(index); total > have {
		return total - have
	}
	if files < absent {
		return 0
	}
	return int64(float64(have) / float64(files) * float64(absent))
}

// totalSize returns the size of all tensors that an index gives, or 0.
func totalSize(index *safetensors.Index) int64 {
	if index == nil {
		return 0
	}
	n, _ := index.Metadata["total_size"].(json.Number)
	size, err := strconv.ParseFloat(string(n), 64)
	if err != nil || size < 1 || size > 1<<60 {
		return 0
	}
	return int64(size)
}

// formatBytes prints a size as the Hub does: 12.6 GB.
func formatBytes(n int64) string {
	value, unit := float64(n), 0
	units := []string{"bytes", "kB", "MB", "GB", "TB", "PB", "EB"}
	for value >= 999.95 && unit < len(units)-1 {
		value, unit = value/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d %s", n, units[0])
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

var numbered = regexp.MustCompile(`^(.*-)(\d{1,6})(-of-(\d{1,6})\.safetensors)$`)

// isPart reports whether the checkpoint is one file of several, by its name.
func (c *Checkpoint) isPart() bool {
	if !c.single || len(c.Shards()) == 0 {
		return false
	}
	m := numbered.FindStringSubmatch(c.Shards()[0])
	if m == nil {
		return false
	}
	last, err := strconv.Atoi(m[4])
	return err != nil || last > 1
}

// withSiblings adds the shards that a name such as model-00001-of-00163.safetensors implies. A set
// with a shard 0 is counted from 0 and ends one earlier, unless the last one is present too.
func withSiblings(names []string) []string {
	all, there := slices.Clone(names), map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	seen := map[string]bool{}
	for _, name := range names {
		m := numbered.FindStringSubmatch(name)
		if m == nil || seen[m[1]+m[3]] {
			continue
		}
		seen[m[1]+m[3]] = true
		number := func(i int) string { return fmt.Sprintf("%s%0*d%s", m[1], len(m[2]), i, m[3]) }
		first := 1
		last, _ := strconv.Atoi(m[4])
		if there[number(0)] {
			first = 0
			if !there[number(last)] {
				last--
			}
		}
		for i := first; i <= last; i++ {
			if name := number(i); !there[name] {
				all = append(all, name)
			}
		}
	}
	return all
}

// isShardName reports whether a name can be that of a shard in the folder itself.
func isShardName(name string) bool {
	return strings.HasSuffix(name, shardEnd) && isFileName(name)
}

// natural compares names by the value of the numbers in them.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, y := leadingDigits(a), leadingDigits(b)
		if x == "" || y == "" {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		m, n := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n),
			cmp.Compare(len(x), len(y))); c != 0 {
			return c
		}
		a, b = a[len(x):], b[len(y):]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
