package adapter

import (
	"path"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// Readers says who may read a checkpoint.
type Readers struct {
	Folder   source.FolderAccess            // its folder
	Folders  map[string]source.FolderAccess // the subfolders of side files, by slash-separated name
	Computed *source.Access                 // what is computed: shards, and all that was read to open it
	Side     []*source.Access               // its side files, in their order
}

// Readers finds out who may read the source. It looks at each file, and at the folders on the way
// to it. Only files that were opened count: a name that leads to another file by now grants nothing.
func (c *Checkpoint) Readers() Readers {
	l := new(source.Lookup)
	defer l.Close()
	r := Readers{
		Folder:  c.store.Access(l, "."),
		Folders: map[string]source.FolderAccess{},
	}
	for name := range c.subfolders() {
		r.Folders[name] = c.store.Access(l, name)
	}
	r.Computed = source.Together(append([]*source.Access{r.Folder.Enter}, c.computed(l)...)...)
	for _, s := range c.side {
		r.Side = append(r.Side, s.File.Access(l))
	}
	return r
}

// subfolders names the subfolders that have side files, and those that they are in.
func (c *Checkpoint) subfolders() map[string]bool {
	names := map[string]bool{}
	for _, s := range c.side {
		for name := path.Dir(s.Name); name != "."; name = path.Dir(name) {
			names[name] = true
		}
	}
	return names
}

// computed gives the access to all files that computed tensors are made from.
func (c *Checkpoint) computed(l *source.Lookup) (all []*source.Access) {
	side := map[source.File]bool{}
	for _, s := range c.side {
		side[s.File] = true
	}
	for _, f := range c.read {
		all = append(all, f.Access(l))
	}
	for _, f := range c.files {
		if !side[f] {
			all = append(all, f.Access(l))
		}
	}
	return all
}
