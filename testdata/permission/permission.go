// Package permission makes owners, modes and POSIX ACLs at random, and knows what the Linux kernel
// grants by them. It shares no code with the program. Only tests import it.
package permission

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// The bits that are wanted of a file or folder.
const (
	Read   = 4
	Search = 1
)

// The tags of ACL entries, as the extended attribute has them.
const (
	Owner  = 0x01
	User   = 0x02
	Group  = 0x04 // the file's own
	Groups = 0x08
	Mask   = 0x10
	Others = 0x20
)

// NoID is the id of entries that are about no particular user or group.
const NoID = ^uint32(0)

// Entry is an entry of an ACL.
type Entry struct {
	Tag, Bits uint16
	ID        uint32
}

// Inode is what the kernel knows of a file or folder. ACL is nil if it has none.
type Inode struct {
	UID, GID, Mode uint32
	ACL            []Entry
}

// Person is a user as the kernel sees one.
type Person struct {
	UID    uint32
	Groups []uint32
}

// Allows is the kernel's acl_permission_check, for a user without capabilities. An ACL is not
// looked at where the mode has nothing for the group.
func (n *Inode) Allows(p Person, want uint32) bool {
	if n.Mode&0o070 == 0 {
		return n.byMode(p, want)
	}
	return n.AllowsByACL(p, want)
}

// AllowsByACL follows POSIX: an ACL always counts.
func (n *Inode) AllowsByACL(p Person, want uint32) bool {
	if n.ACL == nil || p.UID == n.UID {
		return n.byMode(p, want)
	}
	found := false
	for i, e := range n.ACL {
		switch bits := uint32(e.Bits); e.Tag {
		case User:
			if e.ID == p.UID {
				return n.masked(i, bits, want)
			}
		case Group, Groups:
			id := e.ID
			if e.Tag == Group {
				id = n.GID
			}
			if !slices.Contains(p.Groups, id) {
				continue
			}
			if found = true; bits&want == want {
				return n.masked(i, bits, want)
			}
		case Others:
			return !found && bits&want == want
		}
	}
	panic("an ACL without others")
}

func (n *Inode) byMode(p Person, want uint32) bool {
	switch {
	case p.UID == n.UID:
		return n.Mode>>6&want == want
	case slices.Contains(p.Groups, n.GID):
		return n.Mode>>3&want == want
	}
	return n.Mode&want == want
}

// masked applies the mask, which comes after entry i.
func (n *Inode) masked(i int, bits, want uint32) bool {
	for _, e := range n.ACL[i+1:] {
		if e.Tag == Mask {
			bits &= uint32(e.Bits)
		}
	}
	return bits&want == want
}

// Attribute is the ACL as the extended attribute system.posix_acl_access.
func (n *Inode) Attribute() []byte {
	data := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range n.ACL {
		data = binary.LittleEndian.AppendUint16(data, e.Tag)
		data = binary.LittleEndian.AppendUint16(data, e.Bits)
		data = binary.LittleEndian.AppendUint32(data, e.ID)
	}
	return data
}

var letters = map[uint16]string{Owner: "o", User: "u", Group: "g", Groups: "g", Mask: "m",
	Others: "a"}

// String writes it as Parse reads it.
func (n *Inode) String() string {
	text := fmt.Sprintf("%d:%d %04o", n.UID, n.GID, n.Mode)
	for _, e := range n.ACL {
		switch e.Tag {
		case Owner: // as the mode has it
		case User, Groups:
			text += fmt.Sprintf(" %s:%d:%o", letters[e.Tag], e.ID, e.Bits)
		default:
			text += fmt.Sprintf(" %s::%o", letters[e.Tag], e.Bits)
		}
	}
	return text
}

// Parse reads an owner, a group and a mode, as in "10:20 0640", and entries of an ACL in their
// order: u:UID:BITS for a user, g::BITS for the file's group, g:GID:BITS for a group, m::BITS for
// the mask and a::BITS for all others. It panics over anything else.
func Parse(text string) *Inode {
	n := &Inode{}
	words := strings.Fields(text)
	if _, err := fmt.Sscanf(strings.Join(words[:2], " "), "%d:%d %o", &n.UID, &n.GID,
		&n.Mode); err != nil {
		panic(err)
	}
	if len(words) > 2 {
		n.ACL = []Entry{{Owner, uint16(n.Mode >> 6), NoID}}
	}
	for _, word := range words[2:] {
		n.ACL = append(n.ACL, parseEntry(word))
	}
	return n
}

func parseEntry(word string) Entry {
	parts := strings.Split(word, ":")
	tag, ok := map[string]uint16{"u": User, "g": Groups, "m": Mask, "a": Others}[parts[0]]
	if !ok || len(parts) != 3 {
		panic(word)
	}
	number := func(text string, base int) uint32 {
		v, err := strconv.ParseUint(text, base, 32)
		if err != nil {
			panic(err)
		}
		return uint32(v)
	}
	bits := uint16(number(parts[2], 8))
	switch {
	case parts[1] != "":
		return Entry{tag, bits, number(parts[1], 10)}
	case tag == Groups:
		tag = Group
	}
	return Entry{tag, bits, NoID}
}

// Of chooses one of a list.
func Of[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// Random makes an inode: often open to all, sometimes to a few, now and then with random bits. A
// third have ACLs, unless acls is false.
func Random(r *rand.Rand, users, groups []uint32, acls bool) *Inode {
	n := &Inode{UID: Of(r, users...), GID: Of(r, groups...)}
	n.Mode = Of(r, 0o755, 0o755, 0o755, 0o777, 0o750, 0o705, 0o700, r.Uint32N(0o1000))
	if !acls || r.IntN(3) > 0 {
		return n
	}
	bits := func() uint16 { return Of(r, 7, 7, 5, 0, uint16(r.IntN(8))) }
	named := func(tag uint16, ids []uint32) {
		for _, id := range ids {
			if r.IntN(3) == 0 {
				n.ACL = append(n.ACL, Entry{tag, bits(), id})
			}
		}
	}
	n.ACL = []Entry{{Owner, uint16(n.Mode >> 6), NoID}}
	named(User, users)
	n.ACL = append(n.ACL, Entry{Group, bits(), NoID})
	named(Groups, groups)
	mask := bits()
	n.ACL = append(n.ACL, Entry{Mask, mask, NoID}, Entry{Others, uint16(n.Mode & 7), NoID})
	n.Mode = n.Mode&^0o070 | uint32(mask)<<3
	return n
}
