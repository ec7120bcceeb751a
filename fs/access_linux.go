package fs

import (
	"fmt"
	iofs "io/fs"
	"maps"
	"slices"
	"syscall"

	"github.com/dequantfs/dequantfs/adapter"
)

// looks holds the owners, groups and modes that a mount shows. The kernel decides by them who may
// read, so they grant nothing that the source does not. They are found out once, when the mount is
// made.
type looks struct {
	uid, gid uint32
	readers  *adapter.Readers // nil where the kernel lets nobody else in
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

// newLooks finds out what a mount shows; others says whether the kernel may let other users in.
// Where it may not, the modes of the source are shown as they are.
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

// look finds what something shows that is as accessible as a.
func (l *looks) look(a *adapter.Access, bits uint32) look {
	gid := l.gid
	if l.options.GID == nil {
		gid = a.Show(l.uid, l.gid).GID
	}
	return look{gid, l.bits(a, gid) & bits}
}

// folderLook finds what a folder shows.
func (l *looks) folderLook(r adapter.FolderReaders) look {
	k := l.look(r.Enter, enterBits)
	k.mode |= l.bits(r.List, k.gid) & readBits
	return k
}

// bits gives the permissions of something that is as accessible as a. Its owner has mounted it or
// was named by an option. Its group was named too, or all members have access; others need access
// all.
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

// of is what a node shows.
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

// kind is the look of the kind of file that a node is.
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

// lockedOut says who cannot read what and why, a line each. The first is about the mount as a
// whole. Others follow if listings or side files are less open than that.
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

// refusals are those of several files that whole does not say already.
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

// line says the first of them, and how many more there are.
func (r *refusals) line(verb string) []string {
	switch len(r.names) {
	case 0:
		return nil
	case 1:
		return []string{r.first.line(verb, r.names[0])}
	}
	return []string{r.first.line(verb, fmt.Sprintf("%s and %d more", r.names[0], len(r.names)-1))}
}

// refusal says who is locked out, and by what. The zero value is of nobody.
type refusal struct{ who, why string }

func (r refusal) line(verb, what string) string {
	return fmt.Sprintf("%s cannot %s %s: %s", r.who, verb, what, r.why)
}

const allOthers = "other users"

// covers reports whether r says already that those whom other locks out are locked out.
func (r refusal) covers(other refusal) bool {
	return other.who == "" || r.who == other.who || r.who == allOthers
}

// refusal finds who cannot use what is as accessible as a and shows a group.
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
