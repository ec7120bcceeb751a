package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Access says who may read a file of a store, or something that is made from several files. These
// are the users to whom every file and every folder on the way grants it. Root is left out, because
// the kernel lets root read everything. The zero value admits nobody.
type Access struct{ grants []*grant }

// FolderAccess says who may use a folder.
type FolderAccess struct {
	Enter *Access // open a file of it by name
	List  *Access // see the names in it
}

// Nobody is the access to something whose permissions are not known, for a reason.
func Nobody(path, reason string) *Access {
	return &Access{[]*grant{{path: path, unknown: reason}}}
}

// Together is the access to something that is made from several files: it takes access to all.
func Together(all ...*Access) *Access {
	var grants []*grant
	for _, a := range all {
		if a == nil || len(a.grants) == 0 {
			return &Access{}
		}
		grants = append(grants, a.grants...)
	}
	return &Access{distinct(grants)}
}

// distinct drops grants that are listed before.
func distinct(all []*grant) (list []*grant) {
	has := map[*grant]bool{}
	for _, g := range all {
		if !has[g] {
			has[g] = true
			list = append(list, g)
		}
	}
	return list
}

// Lookup shares what is found out about access between several questions, so that each folder is
// looked at once. The zero value is ready. It is for one goroutine, and is closed at the end.
type Lookup struct{ walkers walkers }

// Close ends the lookup.
func (l *Lookup) Close() {
	l.walkers.close()
	l.walkers = walkers{}
}

// Shown says what a file shows besides its owner: a group, and whether the members of that group
// and all others may read it.
type Shown struct {
	GID             uint32
	Members, Others bool
}

// grant is what one file or folder on the way grants.
type grant struct {
	path     string
	dev, ino uint64
	mode     uint32 // as stat shows it
	acl      bool   // there is one besides the mode
	want     uint32 // the bit that is needed of it: canRead of a file, canSearch of a folder
	unknown  string // why its permissions are not known; then it grants nothing
	users    []entry
	groups   []entry
	others   uint32
}

// entry is the bits of one user or group. The first entry of a grant is its owner or its group,
// and the others are those of its ACL, less what the mask of the ACL takes away.
type entry struct{ id, bits uint32 }

const (
	canRead   = 4
	canSearch = 1

	noID = ^uint32(0) // of a user or group that has none in our user namespace

	maxGroups = 32 // that Show tries
)

// Others reports whether everybody may read it. Uid and the members of gid are left out: a file
// shows bits of their own for them. A user or group that is shut out and is neither of these makes
// it false.
func (a *Access) Others(uid, gid uint32) bool {
	return a.all(func(g *grant) bool { return g.toOthers(uid, gid) })
}

// Members reports whether all members of gid may read it, with uid left out.
func (a *Access) Members(uid, gid uint32) bool {
	return a.all(func(g *grant) bool { return g.toMembers(uid, gid) })
}

// all reports whether every grant admits, of which there must be one.
func (a *Access) all(admits func(g *grant) bool) bool {
	refuses := func(g *grant) bool { return !admits(g) }
	return len(a.grants) > 0 && !slices.ContainsFunc(a.grants, refuses)
}

// Why names the file or folder that makes Others false, or else Members.
func (a *Access) Why(uid, gid uint32) string {
	for _, admits := range []func(g *grant) bool{
		func(g *grant) bool { return g.toOthers(uid, gid) },
		func(g *grant) bool { return g.toMembers(uid, gid) },
	} {
		for _, g := range a.grants {
			if !admits(g) {
				return g.String()
			}
		}
	}
	return ""
}

// Show finds what a file that belongs to uid may show without granting more than the source does.
// The group is gid unless another group lets more users read it.
func (a *Access) Show(uid, gid uint32) Shown {
	best := a.show(uid, gid)
	if best.Members && best.Others {
		return best
	}
	for _, id := range a.groups(uid, gid) {
		if s := a.show(uid, id); s.score() > best.score() {
			best = s
		}
	}
	return best
}

func (a *Access) show(uid, gid uint32) Shown {
	return Shown{GID: gid, Members: a.Members(uid, gid), Others: a.Others(uid, gid)}
}

// score orders by how many users may read: all others are more than the members of a group.
func (s Shown) score() (n int) {
	if s.Others {
		n += 2
	}
	if s.Members {
		n++
	}
	return n
}

// groups lists the groups worth showing. Another group helps only if every grant that does not
// admit all names it, so those of the first such grant are enough.
func (a *Access) groups(uid, gid uint32) (ids []uint32) {
	for _, g := range a.grants {
		if g.toOthers(uid, noID) {
			continue
		}
		for _, e := range g.groups[:min(len(g.groups), maxGroups)] {
			if e.id != noID && e.id != gid {
				ids = append(ids, e.id)
			}
		}
		break
	}
	return ids
}

// toOthers does for one grant what Others says. A user or group that the grant names and shuts out
// would be among the others, unless it is uid or gid.
func (g *grant) toOthers(uid, gid uint32) bool {
	return g.unknown == "" && g.has(g.others) && g.admits(g.users, uid) && g.admits(g.groups, gid)
}

// toMembers does for one grant what Members says. A member of several groups has the bits of each
// that the grant names. If it does not name gid, nothing is known about the other groups of its
// members, so each of them must do.
func (g *grant) toMembers(uid, gid uint32) bool {
	if g.unknown != "" || !g.admits(g.users, uid) {
		return false
	}
	named, granted := false, false
	for _, e := range g.groups {
		if e.id == gid {
			named, granted = true, granted || g.has(e.bits)
		}
	}
	if named {
		return granted
	}
	return g.has(g.others) && g.admits(g.groups, noID)
}

// admits reports whether all entries grant what is needed, except those of an id.
func (g *grant) admits(list []entry, except uint32) bool {
	for _, e := range list {
		if !g.has(e.bits) && (e.id != except || e.id == noID) {
			return false
		}
	}
	return true
}

func (g *grant) has(bits uint32) bool { return bits&g.want == g.want }

// String says what is in the way.
func (g *grant) String() string {
	switch {
	case g.unknown != "":
		return fmt.Sprintf("%s %s", g.path, g.unknown)
	case g.acl:
		return fmt.Sprintf("%s is mode %04o and has an ACL", g.path, g.mode)
	}
	return fmt.Sprintf("%s is mode %04o", g.path, g.mode)
}

// fromMode fills in what the mode grants.
func (g *grant) fromMode(uid, gid, mode uint32) {
	g.mode = mode & 0o7777
	g.users = []entry{{uid, mode >> 6 & 7}}
	g.groups = []entry{{gid, mode >> 3 & 7}}
	g.others = mode & 7
}

// The tags of entries of a POSIX ACL, as its extended attribute has them.
const (
	aclOwner  = 0x01
	aclUser   = 0x02
	aclGroup  = 0x04 // the file's own
	aclGroups = 0x08
	aclMask   = 0x10
	aclOthers = 0x20
)

var errACL = errors.New("not a POSIX ACL")

// addACL puts an ACL in the place of the mode's bits for the group. In a file that has one these
// are its mask, which bounds what named users and all groups get.
func (g *grant) addACL(attribute []byte) error {
	const version, head, size = 2, 4, 8
	if len(attribute) < head || binary.LittleEndian.Uint32(attribute) != version || (len(attribute)-head)%size != 0 {
		return errACL
	}
	g.acl = true
	g.groups[0].bits = 0
	mask := uint32(7)
	for e := range slices.Chunk(attribute[head:], size) {
		tag, bits, id := binary.LittleEndian.Uint16(e), uint32(binary.LittleEndian.Uint16(e[2:])), binary.LittleEndian.Uint32(e[4:])
		switch tag {
		case aclOwner:
		case aclUser:
			if id != g.users[0].id { // the owner is not looked up among the named
				g.users = append(g.users, entry{id, bits})
			}
		case aclGroup, aclGroups:
			if tag == aclGroup || id == g.groups[0].id { // members have the bits of both
				g.groups[0].bits |= bits
			} else {
				g.groups = append(g.groups, entry{id, bits})
			}
		case aclMask:
			mask = bits
		case aclOthers:
			g.others &= bits
		default:
			return errACL
		}
	}
	for i := range g.users[1:] {
		g.users[1+i].bits &= mask
	}
	for i := range g.groups {
		g.groups[i].bits &= mask
	}
	return nil
}

// plainNFS4 reports whether an NFSv4 ACL says no more than the mode: it is only about the owner,
// the group and everyone. Any other may shut out users whom the mode admits.
func plainNFS4(attribute []byte) bool {
	word := func() (n uint32) {
		if len(attribute) < 4 {
			return noID
		}
		n, attribute = binary.BigEndian.Uint32(attribute), attribute[4:]
		return n
	}
	for n := word(); n > 0; n-- {
		_, _, _ = word(), word(), word() // type, flags, mask
		size := int(word())
		padded := (size + 3) &^ 3
		if size > 64 || padded > len(attribute) {
			return false
		}
		if who := string(attribute[:size]); who != "OWNER@" && who != "GROUP@" && who != "EVERYONE@" {
			return false
		}
		attribute = attribute[padded:]
	}
	return len(attribute) == 0
}
