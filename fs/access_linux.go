package fs

import (
	"fmt"
	iofs "io/fs"
	"maps"
	"slices"
	"syscall"

	"github.com/dequantfs/dequantfs/adapter"
)

// looks holds the owners, groups and modes that a mount shows. The kernel checks them when a user
// reads, so they grant nothing that the source does not grant. They are computed once, when the
// mount is made.
type looks struct {
	uid, gid uint32
	readers  *adapter.Readers // nil if the kernel lets no other user in
	options  *MountOptions

	folder, computed look
	folders          map[string]look // of subfolders of the source
	side             []look
}

// look is what one kind of file shows.
type look struct{ gid, mode uint32 }

// The bits of a look, for its owner, its group and all others.
const (
	ownerBits, groupBits, otherBits = 0o700, 0o070, 0o007
	readBits, enterBits             = 0o444, 0o111
)

// newLooks computes what a mount shows. others says whether the kernel may let other users in. If
// it may not, the modes of the source are shown as they are.
func (f *FS) newLooks(o *MountOptions, others bool) *looks {
	l := &looks{uid: uint32(syscall.Geteuid()), gid: uint32(syscall.Getegid()), options: o}
	if o.UID != nil {
		l.uid = *o.UID
	}
	if o.GID != nil {
		l.gid = *o.GID
	}
	if !others || f.checkpoint == nil {
		return l
	}
	r := f.checkpoint.Readers()
	l.readers = &r
	l.folder, l.folders = l.folderLook(r.Folder), map[string]look{}
	for name, readers := range r.Folders {
		l.folders[name] = l.folderLook(readers)
	}
	l.computed = l.look(r.Computed, readBits)
	for _, a := range r.Side {
		l.side = append(l.side, l.look(a, readBits))
	}
	return l
}

// look computes what a file shows whose source access is a.
func (l *looks) look(a *adapter.Access, bits uint32) look {
	gid := l.gid
	if l.options.GID == nil {
		gid = a.Show(l.uid, l.gid).GID
	}
	return look{gid, l.bits(a, gid) & bits}
}

// folderLook computes what a folder shows.
func (l *looks) folderLook(r adapter.FolderReaders) look {
	k := l.look(r.Enter, enterBits)
	k.mode |= l.bits(r.List, k.gid) & readBits
	return k
}

// bits returns the permissions of a file whose source access is a. The owner is the user who
// mounts, or an option names the owner. The group may read if an option names it or if a admits all
// its members. Others may read only if a admits everyone.
func (l *looks) bits(a *adapter.Access, gid uint32) uint32 {
	mode := uint32(ownerBits)
	if l.options.GID != nil || a.Members(l.uid, gid) {
		mode |= groupBits
	}
	if a.Others(l.uid, gid) {
		mode |= otherBits
	}
	return mode
}

// of returns what a node shows.
func (l *looks) of(n *node) look {
	k := look{l.gid, uint32(n.mode & iofs.ModePerm)}
	if l.readers != nil {
		k = l.kind(n)
	}
	if m := l.options.Mode; m != nil {
		k.mode = *m & readBits
		if n.content == nil {
			k.mode |= k.mode >> 2
		}
	}
	return k
}

// kind returns what a node shows if no option changes it.
func (l *looks) kind(n *node) look {
	switch {
	case n.folder != "":
		return l.folders[n.folder]
	case n.content == nil:
		return l.folder
	case n.side > 0:
		return l.side[n.side-1]
	}
	return l.computed
}

// lockedOut describes which users cannot read which files, and why, one line each. The first line
// is about the whole mount. More lines follow if listings or side files admit fewer users.
func (f *FS) lockedOut(l *looks) (lines []string) {
	if l.readers == nil || l.options.Mode != nil {
		return nil
	}
	whole := l.refusal(l.readers.Computed, l.computed.gid)
	lists, files := refusals{whole: whole}, refusals{whole: whole}
	lists.add("this mount", l.refusal(l.readers.Folder.List, l.folder.gid))
	for _, name := range slices.Sorted(maps.Keys(l.folders)) {
		lists.add(name, l.refusal(l.readers.Folders[name].List, l.folders[name].gid))
	}
	for i, a := range l.readers.Side {
		files.add(f.checkpoint.SideFiles()[i].Name, l.refusal(a, l.side[i].gid))
	}
	if whole.who != "" {
		lines = append(lines, whole.line("read", "this mount"))
	}
	return append(lines, slices.Concat(lists.line("list"), files.line("read"))...)
}

// refusals collects the refusals of several files. It leaves out what whole already says.
type refusals struct {
	whole, first refusal
	names        []string
}

func (r *refusals) add(name string, refused refusal) {
	if r.whole.covers(refused) {
		return
	}
	if len(r.names) == 0 {
		r.first = refused
	}
	r.names = append(r.names, name)
}

// line describes the first refusal and how many more there are.
func (r *refusals) line(verb string) []string {
	switch len(r.names) {
	case 0:
		return nil
	case 1:
		return []string{r.first.line(verb, r.names[0])}
	}
	return []string{r.first.line(verb, fmt.Sprintf("%s and %d more", r.names[0], len(r.names)-1))}
}

// refusal names the users who are locked out, and the cause. The zero value locks out no user.
type refusal struct{ who, why string }

func (r refusal) line(verb, what string) string {
	return fmt.Sprintf("%s cannot %s %s: %s", r.who, verb, what, r.why)
}

const allOthers = "other users"

// covers reports whether r locks out all users that other locks out.
func (r refusal) covers(other refusal) bool {
	return other.who == "" || r.who == other.who || r.who == allOthers
}

// refusal finds the users who cannot use a file. Its source access is a, and it shows group gid.
func (l *looks) refusal(a *adapter.Access, gid uint32) refusal {
	bits := l.bits(a, gid)
	group, others := bits&groupBits != 0, bits&otherBits != 0
	why := a.Why(l.uid, gid)
	switch {
	case group && others:
		return refusal{}
	case others:
		return refusal{fmt.Sprintf("members of group %d", gid), why}
	case group:
		return refusal{fmt.Sprintf("users who are not in group %d", gid), why}
	}
	return refusal{allOthers, why}
}
