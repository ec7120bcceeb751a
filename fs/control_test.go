package fs

import (
	"encoding/json"
	iofs "io/fs"
	"testing"
)

// controlOf reads a control file through io/fs.
func controlOf[T any](t *testing.T, f *FS, name string) (v T) {
	t.Helper()
	data, err := iofs.ReadFile(f, ControlDir+"/"+name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func TestTheControlDirectoryIsThereButNotListed(t *testing.T) {
	_, dir := writeSynth(t, awkward[0])
	f := openViews(t, dir, Options{}, layout("native", "native", 0), layout("hf", "hf", 0))
	list, err := f.ReadDir(".")
	if err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	name := shardsOf(t, f, "native")[0]
	data := readTree(t, f, name)
	if s := controlOf[Stats](t, f, "stats.json"); s.Bytes != int64(len(data)) {
		t.Errorf("stats: %+v", s)
	}
}

func TestThePlanTellsWhereEachTensorStands(t *testing.T) {
	_, dir := writeSynth(t, awkward[0])
	f := openViews(t, dir, Options{}, layout("native", "native", 0))
	for _, v := range controlOf[[]PlannedView](t, f, "plan.json") {
		for _, p := range v.Tensors {
			whole := readTree(t, f, v.Dir+"/"+p.File)
			got, want := whole[p.Offset:p.Offset+p.Bytes], cutTensors(t, whole)[p.Name]
			if p.Recipe == "" || string(got) != string(want) {
				t.Errorf("%+v", p)
			}
		}
	}
}

func TestTheReportAccountsForEverySourceKey(t *testing.T) {
	c, dir := writeSynth(t, awkward[0])
	f := openViews(t, dir, Options{}, layout("native", "native", 0))
	for _, v := range controlOf[[]ReportedView](t, f, "report.json") {
		seen := map[string]bool{}
		for _, k := range v.Keys {
			seen[k.Key] = true
			if k.Fate == "dropped" && k.Reason == "" {
				t.Errorf("%s was dropped for no reason", k.Key)
			}
		}
		for _, x := range c.Tensors {
			if !seen[x.Name] {
				t.Errorf("%s is not accounted for", x.Name)
			}
		}
	}
}
