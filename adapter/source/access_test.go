package source

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dequantfs/dequantfs/testdata/permission"
	"github.com/dequantfs/dequantfs/testdata/size"
)

// grantOf reads an inode as Readers does.
func grantOf(t *testing.T, n *permission.Inode, want uint32) *grant {
	t.Helper()
	g := &grant{path: "file", want: want}
	g.fromMode(n.UID, n.GID, n.Mode)
	if n.ACL != nil {
		if err := g.addACL(n.Attribute()); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

var (
	testUsers  = []uint32{10, 11, 12}
	testGroups = []uint32{20, 21, 22}
)

// A user and a group that nothing names.
const otherUser, otherGroup = 99, 98

// everyone is each user with each set of groups.
func everyone() (all []permission.Person) {
	groups := append(testGroups, otherGroup)
	for _, uid := range append(testUsers, otherUser) {
		for set := range 1 << len(groups) {
			p := permission.Person{UID: uid}
			for i, gid := range groups {
				if set>>i&1 != 0 {
					p.Groups = append(p.Groups, gid)
				}
			}
			all = append(all, p)
		}
	}
	return all
}

// way is the inodes that a name depends on, with the bit needed of each.
type way []struct {
	*permission.Inode
	want uint32
}

func randomWay(r *rand.Rand) (w way) {
	for range 1 + r.IntN(4) {
		n := permission.Random(r, testUsers, testGroups, true)
		w = append(w, way{{n, permission.Of[uint32](r, canRead, canSearch)}}...)
	}
	return w
}

func (w way) access(t *testing.T) *Access {
	a := &Access{}
	for _, n := range w {
		a.grants = append(a.grants, grantOf(t, n.Inode, n.want))
	}
	return a
}

// allows says whether a user has access; by the ACL also where Linux does not look at it.
func (w way) allows(p permission.Person, byACL bool) bool {
	for _, n := range w {
		if byACL && !n.AllowsByACL(p, n.want) || !byACL && !n.Allows(p, n.want) {
			return false
		}
	}
	return true
}

// Others and members get access exactly if the kernel grants it to each of them.
func TestAccessGrantsWhatTheKernelGrants(t *testing.T) {
	people := everyone()
	for _, seed := range size.Seeds(t) {
		r := rand.New(rand.NewPCG(seed, 0))
		for range size.Count(6_000, 600_000) / 3 {
			w := randomWay(r)
			a := w.access(t)
			uid := permission.Of(r, append(testUsers, 97)...)
			for _, gid := range append(testGroups, otherGroup) {
				members, others := true, true
				for _, p := range people {
					of := &others
					if slices.Contains(p.Groups, gid) {
						of = &members
					}
					*of = *of && (p.UID == uid || w.allows(p, true))
				}
				if a.Members(uid, gid) != members || a.Others(uid, gid) != others {
					t.Fatalf("%v as of %d and group %d: members %v, others %v; the kernel "+
						"grants it to members %v, others %v",
						w, uid, gid, a.Members(uid, gid), a.Others(uid, gid), members, others)
				}
			}
		}
	}
}

func TestWhatIsShownGrantsNothingThatTheKernelRefuses(t *testing.T) {
	people := everyone()
	for _, seed := range size.Seeds(t) {
		r := rand.New(rand.NewPCG(seed, 1))
		for range size.Count(6_000, 600_000) / 3 {
			w := randomWay(r)
			uid := permission.Of(r, append(testUsers, 97)...)
			s := w.access(t).Show(uid, permission.Of(r, append(testGroups, otherGroup)...))
			for _, p := range people {
				shown := s.Others
				if slices.Contains(p.Groups, s.GID) {
					shown = s.Members
				}
				if shown && p.UID != uid && !w.allows(p, false) {
					t.Fatalf("%v as of %d shows %+v, which lets %v read", w, uid, s, p)
				}
			}
		}
	}
}

// The group that is shown is one that helps, and the caller's where that is as good.
func TestAccessShowsTheGroupThatHelps(t *testing.T) {
	const caller = 20
	for _, c := range []struct {
		what string
		way  []string
		want Shown
	}{
		{"open to all", []string{"10:21 0644"}, Shown{caller, true, true}},
		{"open to its group", []string{"10:21 0640"}, Shown{21, true, false}},
		{"open to all but its group", []string{"10:21 0604"}, Shown{21, false, true}},
		{"open to its owner", []string{"10:21 0600"}, Shown{caller, false, false}},
		{"closed to its owner", []string{"11:21 0044"}, Shown{caller, false, false}},
		{"closed to its owner, who mounts", []string{"10:21 0044"}, Shown{caller, true, true}},
		{"two groups", []string{"10:21 0640", "10:22 0640"}, Shown{caller, false, false}},
		{"two groups, one of them open to all", []string{"10:22 0644", "10:21 0640"}, Shown{21, true, false}},
		{"an ACL for another group", []string{"10:21 0640 g::0 g:22:4 m::4 a::0"}, Shown{22, true, false}},
		{"an ACL against a user", []string{"10:21 0644 u:12:0 g::4 m::4 a::4"}, Shown{caller, false, false}},
		{"a group's bits that are a mask", []string{"10:21 0640 u:12:4 g::0 m::4 a::0"}, Shown{caller, false, false}},
	} {
		a := &Access{}
		for _, text := range c.way {
			a.grants = append(a.grants, grantOf(t, permission.Parse(text), canRead))
		}
		if got := a.Show(10, caller); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

func TestWhatIsNotKnownIsGrantedToNobody(t *testing.T) {
	a := &Access{[]*grant{{path: "/x", mode: 0o777, others: 7, users: []entry{{10, 7}},
		groups: []entry{{20, 7}}, unknown: "is odd"}}}
	if a.Others(10, 20) || a.Members(10, 20) || a.Show(10, 20) != (Shown{GID: 20}) {
		t.Error("something is granted")
	}
	if got := a.Why(10, 20); got != "/x is odd" {
		t.Errorf("%q", got)
	}
	// A user that the namespace does not have is not the one that the kernel shows in his place.
	a.grants[0] = &grant{want: canRead, others: 7, users: []entry{{noID, 0}},
		groups: []entry{{noID, 0}}}
	if a.Others(noID, noID) || a.Members(noID, noID) {
		t.Error("something is granted to a user without an id")
	}
}

func TestACLsAreReadStrictly(t *testing.T) {
	good := permission.Parse("1:2 0644 g::4 a::4").Attribute()
	for what, data := range map[string][]byte{
		"empty": {}, "short": good[:len(good)-1], "another version": append([]byte{3}, good[1:]...),
		"an unknown tag": append(slices.Clone(good), 0x40, 0, 7, 0, 0, 0, 0, 0),
	} {
		g := &grant{}
		g.fromMode(1, 2, 0o644)
		if g.addACL(data) == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func TestNFSv4ACLsThatSayMoreThanTheMode(t *testing.T) {
	ace := func(kind uint32, who string) []byte {
		data := binary.BigEndian.AppendUint32(nil, kind)
		data = binary.BigEndian.AppendUint32(data, 0)
		data = binary.BigEndian.AppendUint32(data, 0x1601ff)
		data = binary.BigEndian.AppendUint32(data, uint32(len(who)))
		return append(data, who+"\x00\x00\x00"[:(4-len(who)%4)%4]...)
	}
	of := func(aces ...[]byte) []byte {
		return slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(len(aces))),
			slices.Concat(aces...))
	}
	plain := of(ace(0, "OWNER@"), ace(1, "GROUP@"), ace(0, "EVERYONE@"))
	if !plainNFS4(plain) {
		t.Error("owner, group and everyone are more than the mode")
	}
	for what, data := range map[string][]byte{
		"a user":       of(ace(0, "OWNER@"), ace(1, "alice@example.org"), ace(0, "EVERYONE@")),
		"cut off":      plain[:len(plain)-4],
		"with a tail":  append(slices.Clone(plain), 0, 0, 0, 0),
		"nothing":      nil,
		"many of none": {0xff, 0xff, 0xff, 0xff},
	} {
		if plainNFS4(data) {
			t.Errorf("%s: taken for the mode", what)
		}
	}
}

// FuzzACL feeds both readers of ACLs any bytes: others never get more than the mode says.
func FuzzACL(f *testing.F) {
	f.Add(permission.Parse("1:2 0644 u:7:4 g::4 m::7 a::4").Attribute(), uint32(0o644))
	f.Fuzz(func(t *testing.T, data []byte, mode uint32) {
		g := &grant{want: canRead}
		g.fromMode(1, 2, mode)
		before := g.others
		if err := g.addACL(data); err == nil && g.others&^before != 0 {
			t.Errorf("others have %o, by the mode %o", g.others, before)
		}
		plainNFS4(data)
	})
}
