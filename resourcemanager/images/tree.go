package images

import (
	"errors"
	"hash/maphash"
	"strings"
)

// kind is what a name in an unpacked layer is.
type kind byte

const (
	absent kind = iota
	folder
	regular
	// special is a device or a pipe.
	special
	symlink
	// deleted is an overlay file system's whiteout: the file of lower layers is hidden.
	deleted
)

// node is one name of a tree.
type node struct {
	kind kind
	// id is the index of the folder, or of the link's target.
	id int32
}

// folderFacts describes a folder of a tree.
type folderFacts struct {
	parent int32
	// length is the length of the folder's path in bytes, without links.
	length int32
	// opaque hides what lower layers have in this folder.
	opaque bool
}

// tree is what an engine's folder has after it unpacked one layer alone, as overlay2 does. Names are stored as hashes,
// because one may be 255 bytes long.
type tree struct {
	seed    maphash.Seed
	nodes   map[uint64]node
	folders []folderFacts
	targets []string
	// linkBytes is the total length of targets.
	linkBytes int64
	// steps is how many names were looked up since the tree was created. It does not change after the layer was read, so
	// that examinations may share the tree.
	steps int64
}

// maxLinks is how many symbolic links the kernel follows in one path.
const maxLinks = 40

var (
	errAbsent    = errors.New("it does not exist")
	errNotFolder = errors.New("it is not a folder")
	errLoop      = errors.New("too many symbolic links lead there")
	errDeep      = errors.New("its path is too long")
)

func newTree() *tree {
	return &tree{seed: maphash.MakeSeed(), nodes: map[uint64]node{}, folders: []folderFacts{{}}}
}

// cost is the approximate memory of the tree, in names.
func (t *tree) cost() int64 { return int64(len(t.nodes)) + t.linkBytes/32 }

func (t *tree) key(folder int32, name string) uint64 {
	return maphash.String(t.seed, name) ^ uint64(folder)*0x9e3779b97f4a7c15
}

func (t *tree) at(folder int32, name string) node {
	return t.nodes[t.key(folder, name)]
}

// location is where a path leads: a name in a folder. The root has no name.
type location struct {
	parent int32
	name   string
	node   node
}

// find follows a path as the kernel does. A link as the last element is followed if followLast is set. If the last element
// does not exist, the node is absent. It fails with errAbsent, errNotFolder or errLoop.
func (t *tree) find(rooted string, followLast bool) (location, error) {
	found := location{node: node{kind: folder}}
	rest, links := rooted, 0
	for more := true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		t.steps++
		switch {
		case found.node.kind == absent:
			return location{}, errAbsent
		case found.node.kind != folder:
			return location{}, errNotFolder
		case name == "" || name == ".":
			continue
		case name == "..":
			found = location{node: node{folder, t.folders[found.node.id].parent}}
			continue
		}
		in := found.node.id
		found = location{in, name, t.at(in, name)}
		if found.node.kind != symlink || !more && !followLast {
			continue
		}
		if links++; links > maxLinks {
			return location{}, errLoop
		}
		target := t.targets[found.node.id]
		t.steps += int64(len(target)) / 64
		found = location{node: node{folder, in}}
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

// place adds a name that does not exist to a folder. It fails with errDeep.
func (t *tree) place(in location, what node) error {
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

// link stores the target of a symbolic link.
func (t *tree) link(target string) node {
	t.targets = append(t.targets, target)
	t.linkBytes += int64(len(target))
	return node{symlink, int32(len(t.targets) - 1)}
}

// remove deletes a name, and everything below a folder with it.
func (t *tree) remove(one location) { delete(t.nodes, t.key(one.parent, one.name)) }
