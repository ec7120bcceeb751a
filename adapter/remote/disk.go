package remote

import (
	"net/url"
	"strings"

	"github.com/dequantfs/dequantfs/adapter/remote/diskcache"
)

// sited is a backend whose name does not say which servers it asks. Their objects may have other
// bytes under the same name and version.
type sited interface {
	// server is the address of the servers, if it is not the usual one.
	server() string
}

// disk is the disk cache for one source.
type disk struct {
	cache          *diskcache.Cache
	origin, server string
}

// openDisk opens the disk cache for a source. It returns nil if there is none.
func openDisk(b backend, o Options) (*disk, error) {
	if o.DiskCache == "" {
		return nil, nil
	}
	settings := diskcache.Options{Size: o.DiskCacheSize, Logger: o.Logger}
	c, err := diskcache.Open(o.DiskCache, settings)
	if err != nil {
		return nil, err
	}
	d := &disk{cache: c, origin: withoutRevision(b.name())}
	if p, ok := b.(sited); ok {
		d.server = p.server()
	}
	return d, nil
}

// withoutRevision takes the revision off the name of a repository. Versions of its objects depend
// on their bytes alone, so a revision shares them with others.
func withoutRevision(name string) string {
	before, after, found := strings.Cut(name, "@")
	if !found || !strings.HasPrefix(name, "hf://") {
		return name
	}
	_, folder, found := strings.Cut(after, "/")
	if !found {
		return before
	}
	return before + "/" + folder
}

// serverName is an address without credentials, for the name of a block.
func serverName(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }

// key identifies an object. If changes of it could go unseen, it has no version, and is not kept.
func (d *disk) key(o *object) diskcache.Key {
	k := diskcache.Key{Origin: d.origin, Object: o.name, Version: o.version}
	switch {
	case o.unseen != "":
		k.Version = ""
	case o.version != "" && d.server != "":
		k.Version += " " + d.server
	}
	return k
}

// Read fills p with a block.
func (d *disk) Read(o *object, off, n int64, p []byte) bool {
	return d.cache.Read(d.key(o), off, n, p, 0)
}

// Write keeps a block.
func (d *disk) Write(o *object, off int64, p []byte) { d.cache.Write(d.key(o), off, p) }
