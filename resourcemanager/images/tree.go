package images

import (
	"errors"
	"hash/maphash"
	"strings"
)

// kind is what a name in a layer stands for once it is unpacked.
type kind byte

const (
	absent kind = iota
	folder
	regular
	// special is a device or a pipe.
	special
	symlink
	// deleted is what an overlay file system takes for "the layers below have no such file here".
	deleted
)

// node is one name of a tree.
type node struct {
	kind kind
	// id is the folder's number, or the number of the link's target.
	id int32
}

// folderFacts are what is known of a folder of a tree.
type folderFacts struct {
	parent int32
	// length is that of the folder's path in bytes, without links in it.
	length int32
	// opaque hides what lower layers have in this folder.
	opaque bool
}

// tree is what a folder holds into which an engine has unpacked one layer alone, as overlay2 does. Names are kept as
// hashes, since one may be 255 bytes long.
type tree struct {
	seed    maphash.Seed
	nodes   map[uint64]node
	folders []folderFacts
	targets []string
	// linkBytes is how long all targets are together.
	linkBytes int64
	// steps is how many names were followed since the tree was made. It stays once the layer was read, so that examinations
	// may share the tree.
	steps int64
}

// maxLinks is how many symbolic links the kernel follows in one path.
const maxLinks = 40

var (
	errAbsent    = errors.New("nothing is there")
	errNotFolder = errors.New("it is no folder")
	errLoop      = errors.New("too many symbolic links lead there")
	errDeep      = errors.New("its path is too long")
)

func newTree() *tree {
	return &tree{seed: maphash.MakeSeed(), nodes: map[uint64]node{}, folders: []folderFacts{{}}}
}

// weight is about how much memory the tree takes, in names.
func (t *tree) weight() int64 { return int64(len(t.nodes)) + t.linkBytes/32 }

func (t *tree) key(folder int32, name string) uint64 {
	return maphash.String(t.seed, name) ^ uint64(folder)*0x9e3779b97f4a7c15
}

func (t *tree) at(folder int32, name string) node {
	return t.nodes[t.key(folder, name)]
}

// spot is where a path leads: a name in a folder. The root has no name.
type spot struct {
	parent int32
	name   string
	node   node
}

// find follows a path as the kernel does in this tree. A link in the path's last place is followed if through is set. The
// last name need not be there; then the spot's node is absent. It fails with errAbsent, errNotFolder or errLoop.
func (t *tree) find(rooted string, through bool) (spot, error) {
	found := spot{node: node{kind: folder}}
	rest, links := rooted, 0
	for more := true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		t.steps++
		switch {
		case found.node.kind == absent:
			return spot{}, errAbsent
		case found.node.kind != folder:
			return spot{}, errNotFolder
		case name == "" || name == ".":
			continue
		case name == "..":
			found = spot{node: node{folder, t.folders[found.node.id].parent}}
			continue
		}
		in := found.node.id
		found = spot{in, name, t.at(in, name)}
		if found.node.kind != symlink || !more && !through {
			continue
		}
		if links++; links > maxLinks {
			return spot{}, errLoop
		}
		target := t.targets[found.node.id]
		t.steps += int64(len(target)) / 64
		found = spot{node: node{folder, in}}
		if strings.HasPrefix(target, "/") {
			found.node.id = 0
		}
		if more {
			target += "/" + rest
		}
		rest, more = target, true
	}
	return found, nil
}

// put places a name, which is not there yet, in a folder. It fails with errDeep.
func (t *tree) put(in spot, what node) error {
	length := t.folders[in.parent].length + 1 + int32(len(in.name))
	if length > maxLayerName+1 {
		return errDeep
	}
	if what.kind == folder {
		what.id = int32(len(t.folders))
		t.folders = append(t.folders, folderFacts{parent: in.parent, length: length})
	}
	t.nodes[t.key(in.parent, in.name)] = what
	return nil
}

// link keeps the target of a symbolic link.
func (t *tree) link(target string) node {
	t.targets = append(t.targets, target)
	t.linkBytes += int64(len(target))
	return node{symlink, int32(len(t.targets) - 1)}
}

// remove takes a name away, and with a folder all that is in it: nothing leads there any more.
func (t *tree) remove(one spot) { delete(t.nodes, t.key(one.parent, one.name)) }
