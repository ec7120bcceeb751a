package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Access is the set of users who may read a file of a store, or data made from several files. These
// are the users to whom every file and every folder on the way grants access. Root is left out,
// because the kernel lets root read everything. The zero value admits no user.
type Access struct{ grants []*grant }

// FolderAccess is the set of users who may use a folder.
type FolderAccess struct {
	Enter *Access // open a file of it by name
	List  *Access // see the names in it
}

// NoAccess returns the access to a file with unknown permissions. reason says why they are unknown.
func NoAccess(path, reason string) *Access {
	return &Access{[]*grant{{path: path, unknown: reason}}}
}

// Everyone returns the access to a file that all users may read, such as one of a public
// repository. name names the file in messages.
func Everyone(name string) *Access {
	g := &grant{path: name, want: canRead, others: canRead}
	g.mode = 0o444
	return &Access{[]*grant{g}}
}

// Together returns the access to data made from several files. A user needs access to all of them.
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

// distinct removes repeated grants.
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

// Lookup caches permissions between several calls, so each folder is inspected once. The zero value
// is ready. It is for one goroutine, and must be closed.
type Lookup struct{ walkers walkers }

// Close ends the lookup.
func (l *Lookup) Close() {
	l.walkers.close()
	l.walkers = walkers{}
}

// Shown is what a file shows besides its owner: a group, and whether the members of that group and
// all others may read it.
type Shown struct {
	GID             uint32
	Members, Others bool
}

// grant is the permissions of one file or folder on the way.
type grant struct {
	path     string
	dev, ino uint64
	mode     uint32 // as stat shows it
	acl      bool   // an ACL exists besides the mode
	want     uint32 // the bit that is needed: canRead of a file, canSearch of a folder
	unknown  string // why its permissions are unknown; then it grants nothing
	users    []entry
	groups   []entry
	others   uint32
}

// entry is the bits of one user or group. The first entry of a grant is its owner or its group. The
// others come from its ACL, reduced by the mask of the ACL.
type entry struct{ id, bits uint32 }

const (
	canRead   = 4
	canSearch = 1

	noID = ^uint32(0) // a user or group without an id in our user namespace

	maxGroups = 32 // that Show tries
)

// Others reports whether every user may read it, apart from uid and the members of gid. These two
// have their own bits in the file that is shown. Any other user or group without access makes it
// false.
func (a *Access) Others(uid, gid uint32) bool {
	return a.all(func(g *grant) bool { return g.toOthers(uid, gid) })
}

// Members reports whether all members of gid may read it, apart from uid.
func (a *Access) Members(uid, gid uint32) bool {
	return a.all(func(g *grant) bool { return g.toMembers(uid, gid) })
}

// all reports whether admits is true for every grant, of which there must be one.
func (a *Access) all(admits func(g *grant) bool) bool {
	refuses := func(g *grant) bool { return !admits(g) }
	return len(a.grants) > 0 && !slices.ContainsFunc(a.grants, refuses)
}

// Why names the file or folder that makes Others false or, if Others is true, Members.
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

// Show returns the permissions that a file of uid may show without granting more than the source
// does. The group is gid unless another group lets more users read it.
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

// score orders by how many users may read. All others count more than the members of a group.
func (s Shown) score() (n int) {
	if s.Others {
		n += 2
	}
	if s.Members {
		n++
	}
	return n
}

// groups lists the groups worth showing. Another group helps only if it is named by every grant
// that does not admit all users. So the groups of the first such grant are enough.
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

// toOthers answers Others for one grant. A user or group that the grant shuts out is one of the
// others, unless it is uid or gid.
func (g *grant) toOthers(uid, gid uint32) bool {
	return g.unknown == "" && g.has(g.others) && g.admits(g.users, uid) && g.admits(g.groups, gid)
}

// toMembers answers Members for one grant. A member of several groups has the bits of each group
// that the grant names. If the grant does not name gid, the other groups of its members are
// unknown, so each group has to be admitted.
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

// admits reports whether all entries except that of one id grant the wanted bit.
func (g *grant) admits(list []entry, except uint32) bool {
	for _, e := range list {
		if !g.has(e.bits) && (e.id != except || e.id == noID) {
			return false
		}
	}
	return true
}

func (g *grant) has(bits uint32) bool { return bits&g.want == g.want }

// String names the obstacle.
func (g *grant) String() string {
	switch {
	case g.unknown != "":
		return fmt.Sprintf("%s %s", g.path, g.unknown)
	case g.acl:
		return fmt.Sprintf("%s is mode %04o and has an ACL", g.path, g.mode)
	}
	return fmt.Sprintf("%s is mode %04o", g.path, g.mode)
}

// fromMode fills in the grants of a mode.
func (g *grant) fromMode(uid, gid, mode uint32) {
	g.mode = mode & 0o7777
	g.users = []entry{{uid, mode >> 6 & 7}}
	g.groups = []entry{{gid, mode >> 3 & 7}}
	g.others = mode & 7
}

// Tags of entries of a POSIX ACL in its extended attribute.
const (
	aclOwner  = 0x01
	aclUser   = 0x02
	aclGroup  = 0x04 // the file's own
	aclGroups = 0x08
	aclMask   = 0x10
	aclOthers = 0x20
)

var errACL = errors.New("not a POSIX ACL")

// addACL replaces the mode's bits for the group by those of an ACL. In a file with an ACL, the
// mode's bits are its mask, which bounds the bits of named users and of all groups.
func (g *grant) addACL(attribute []byte) error {
	const version, head, size = 2, 4, 8
	if len(attribute) < head || (len(attribute)-head)%size != 0 ||
		binary.LittleEndian.Uint32(attribute) != version {
		return errACL
	}
	g.acl = true
	g.groups[0].bits = 0
	mask := uint32(7)
	for e := range slices.Chunk(attribute[head:], size) {
		tag, id := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint32(e[4:])
		bits := uint32(binary.LittleEndian.Uint16(e[2:]))
		switch tag {
		case aclOwner:
		case aclUser:
			if id != g.users[0].id { // the owner's own entry decides
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
// the group and everyone. Any other ACL may shut out users whom the mode admits.
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
		switch string(attribute[:size]) {
		case "OWNER@", "GROUP@", "EVERYONE@":
		default:
			return false
		}
		attribute = attribute[padded:]
	}
	return len(attribute) == 0
}
