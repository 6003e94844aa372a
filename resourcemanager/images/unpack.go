package images

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/resource"
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	// maxTarget is how long the target of a symbolic link may be.
	maxTarget = 4095
)

// walk goes through one layer and does in a tree what an engine does on disk. Engines unpack a layer in a folder of its
// own, with that folder as the root, so nothing of lower layers is there.
type walk struct {
	*examination
	what  string
	facts layerFacts
	tree  *tree
	// seen are the names as they are written.
	seen map[uint64]struct{}
	// replaced says that something took the place of a folder or link, so that folders may be gone at the end.
	replaced bool
}

func (e *examination) walk(what string) *walk {
	tree := newTree()
	return &walk{examination: e, what: what, facts: layerFacts{tree: tree}, tree: tree, seen: map[uint64]struct{}{}}
}

func (w *walk) entries(ctx context.Context, reader *tar.Reader) error {
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return damaged(w.what, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.facts.size += header.Size
		if header.Size < 0 || w.facts.size < 0 || w.size+w.facts.size > w.limits.ExpandedBytes {
			return errExpands
		}
		w.facts.entries++
		if err := w.entry(header); err != nil {
			return err
		}
		if err := w.bounded(); err != nil {
			return err
		}
		if err := w.account(header, reader); err != nil {
			return damaged(w.what, err)
		}
	}
}

// bounded holds the work and the memory for an image's layers within the limits.
func (w *walk) bounded() error {
	switch {
	case w.examination.entries+w.facts.entries > w.limits.LayerEntries:
		return w.tooMany()
	case w.tree.linkBytes > w.limits.LinkBytes:
		return fmt.Errorf("the symbolic links of %s lead to names of more than %s together, which is the limit: %w", w.what, resource.FormatBytes(w.limits.LinkBytes), errdefs.ErrResourceExhausted)
	case w.steps+w.tree.steps > w.limits.PathSteps:
		return fmt.Errorf("the names in the image's layers have more than %d parts together, links in them included, which is the limit: %w", w.limits.PathSteps, errdefs.ErrResourceExhausted)
	}
	return nil
}

// entry looks at one name of the layer and unpacks it.
func (w *walk) entry(header *tar.Header) error {
	if leadsOut(header.Name) {
		return invalid("%s holds the name %q, which leads out of the container", w.what, header.Name)
	}
	// Engines compare the names as they are written: "/a" is not "a" to them.
	written := path.Clean(header.Name)
	key := w.tree.key(0, written)
	if _, ok := w.seen[key]; ok {
		return invalid("%s holds %q twice, which engines refuse to unpack; build the layer anew with each file once", w.what, header.Name)
	}
	w.seen[key] = struct{}{}
	if header.Typeflag == tar.TypeXGlobalHeader || written == "." {
		return nil // The layer's own folder is there, whatever an archive calls it.
	}
	rooted := path.Join("/", written)
	dir, base := path.Split(rooted)
	hidden, isWhiteout := strings.CutPrefix(base, whiteout)
	if isWhiteout && base != opaque {
		rooted = path.Join(dir, hidden)
	}
	if err := w.tooLong(rooted); err != nil {
		return err
	}
	if rooted == "/" && !isWhiteout {
		if header.Typeflag != tar.TypeDir {
			return invalid("%s holds %q, which is the container's root and can only be a folder", w.what, header.Name)
		}
		return w.attributes(header, folder)
	}
	if err := w.parents(header, dir); err != nil {
		return err
	}
	switch {
	case base == opaque:
		return w.hide(header, dir)
	case isWhiteout:
		return w.delete(header, hidden, rooted)
	}
	return w.make(header, rooted)
}

func (w *walk) tooLong(rooted string) error {
	if length := len(rooted) - 1; length > maxLayerName {
		return invalid("%s holds a name of %d bytes, and none may be longer than %d; use shorter names", w.what, length, maxLayerName)
	}
	for element := range strings.SplitSeq(rooted, "/") {
		if len(element) > maxElement {
			return invalid("%s holds a name with a part of %d bytes, %q…, and none may be longer than %d; use shorter names", w.what, len(element), element[:32], maxElement)
		}
	}
	return nil
}

// parents makes the folders above an entry, if the lowest of them is not there. What else stands there is left alone, as
// engines do.
func (w *walk) parents(header *tar.Header, dir string) error {
	if found, err := w.tree.find(path.Clean(dir), false); err == nil && found.node.kind != absent || err != nil && err != errAbsent {
		return nil
	}
	for end := 1; end < len(dir); end++ {
		if dir[end] != '/' {
			continue
		}
		found, err := w.tree.find(dir[:end], false)
		if err != nil {
			return w.noFolder(header, dir)
		}
		if found.node.kind != absent {
			continue
		}
		w.facts.entries++
		if err := w.tree.put(found, node{kind: folder}); err != nil {
			return w.tooDeep(header)
		}
	}
	return nil
}

// noFolder says which of the names above an entry is not a folder.
func (w *walk) noFolder(header *tar.Header, dir string) error {
	for end := 1; end < len(dir); end++ {
		if dir[end] != '/' {
			continue
		}
		own, err := w.tree.find(dir[:end], false)
		if err != nil {
			break
		}
		switch own.node.kind {
		case folder:
		case symlink:
			if led, err := w.tree.find(dir[:end], true); err != nil || led.node.kind != folder {
				target := w.tree.targets[own.node.id]
				return invalid("%s holds %q, but %q above it is a symbolic link to %s, where the layer has no folder before it; engines unpack each layer alone, so add that folder to the layer first, or leave the link out", w.what, header.Name, dir[:end], shortened(target))
			}
		case deleted:
			return invalid("%s holds %q, but deletes %q above it; name that folder in the layer behind its deletion", w.what, header.Name, dir[:end])
		default:
			return invalid("%s holds %q, but %q above it is no folder there; build the layer anew with only one of them", w.what, header.Name, dir[:end])
		}
	}
	return invalid("%s holds %q, but there is no folder above it; build the layer anew with its folders", w.what, header.Name)
}

func (w *walk) tooDeep(header *tar.Header) error {
	return invalid("%s holds %s, which symbolic links lead to a path of more than %d bytes; use shorter names", w.what, shortened(header.Name), maxLayerName)
}

// hide marks a folder as one in which nothing of lower layers is to be seen.
func (w *walk) hide(header *tar.Header, dir string) error {
	found, err := w.tree.find(path.Clean(dir), true)
	if err != nil || found.node.kind == absent {
		return w.noFolder(header, dir)
	}
	if found.node.kind == folder {
		w.tree.folders[found.node.id].opaque = true
	}
	return nil
}

// delete says that lower layers' file of a name is not to be seen.
func (w *walk) delete(header *tar.Header, hidden, rooted string) error {
	if hidden == "" || hidden == "." || hidden == ".." {
		return invalid("%s holds %q, which says that a file is deleted, but not which; build the layer anew without it", w.what, header.Name)
	}
	found, err := w.tree.find(rooted, false)
	switch {
	case err != nil:
		return w.noFolder(header, path.Dir(rooted)+"/")
	case found.node.kind != absent:
		return invalid("%s holds %q and says, with %q, that it is deleted, which engines refuse to unpack; build the layer anew with only one of them", w.what, strings.TrimPrefix(rooted, "/"), header.Name)
	}
	if w.tree.put(found, node{kind: deleted}) != nil {
		return w.tooDeep(header)
	}
	return nil
}

// make puts an entry in its place, for whatever was there before; only folders become one.
func (w *walk) make(header *tar.Header, rooted string) error {
	found, err := w.tree.find(rooted, false)
	if err != nil {
		return w.noFolder(header, rooted)
	}
	if before := found.node.kind; before == folder && header.Typeflag == tar.TypeDir {
		return w.attributes(header, folder)
	} else if before != absent {
		w.tree.remove(found)
		w.replaced = w.replaced || before == folder || before == symlink
		// A link above may have led to what is gone now.
		if found, err = w.tree.find(rooted, false); err != nil {
			return w.noFolder(header, rooted)
		}
	}
	made, err := w.node(header)
	if err != nil {
		return err
	}
	if w.tree.put(found, made) != nil {
		return w.tooDeep(header)
	}
	return w.attributes(header, made.kind)
}

// node is what an entry becomes.
func (w *walk) node(header *tar.Header) (node, error) {
	switch header.Typeflag {
	case tar.TypeDir:
		return node{kind: folder}, nil
	case tar.TypeReg:
		return node{kind: regular}, nil
	case tar.TypeChar:
		if header.Devmajor == 0 && header.Devminor == 0 {
			return node{kind: deleted}, nil
		}
		return node{kind: special}, nil
	case tar.TypeBlock, tar.TypeFifo:
		return node{kind: special}, nil
	case tar.TypeLink:
		return w.hardLink(header)
	case tar.TypeSymlink:
		if target := header.Linkname; target == "" || len(target) > maxTarget {
			return node{}, invalid("%s links %q to a name of %d bytes, and it must be 1 to %d; build the layer anew without it", w.what, header.Name, len(target), maxTarget)
		}
		return w.tree.link(header.Linkname), nil
	}
	return node{}, invalid("%s holds %q as an entry of the type %q, which no engine unpacks; build the layer anew as a plain tar file", w.what, header.Name, header.Typeflag)
}

func (w *walk) hardLink(header *tar.Header) (node, error) {
	found, err := w.tree.find(path.Join("/", header.Linkname), false)
	switch {
	case err != nil || found.node.kind == absent:
		return node{}, invalid("%s links %q to %q, which is not before it in the same layer; engines unpack each layer alone, so put a copy of the file into this layer, or build both in one step", w.what, header.Name, header.Linkname)
	case found.node.kind == folder:
		return node{}, invalid("%s links %q to the folder %q, which no file system allows; use a symbolic link", w.what, header.Name, header.Linkname)
	}
	return found.node, nil
}

// foldersStay goes through a layer again in which something took the place of a folder: engines set the times of every
// folder at the end.
func (w *walk) foldersStay(ctx context.Context, reader *tar.Reader) error {
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return damaged(w.what, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if header.Typeflag != tar.TypeDir || strings.HasPrefix(path.Base(path.Clean(header.Name)), whiteout) {
			continue
		}
		if found, err := w.tree.find(path.Join("/", header.Name), true); err != nil || found.node.kind == absent {
			return invalid("%s holds the folder %q, and then puts something else in its place; build the layer anew with only one of them", w.what, header.Name)
		}
		if err := w.bounded(); err != nil {
			return err
		}
	}
}

func leadsOut(name string) bool {
	relative := path.Clean(strings.TrimLeft(name, "/"))
	return relative == ".." || strings.HasPrefix(relative, "../")
}
