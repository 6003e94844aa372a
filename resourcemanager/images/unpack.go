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
	// maxTarget is the longest target of a symbolic link.
	maxTarget = 4095
)

// walk unpacks one layer into a tree as an engine does on disk: in a folder of its own that is the root, without lower
// layers.
type walk struct {
	*examination
	what  string
	facts layerFacts
	tree  *tree
	// seen are the names as they are written in the layer.
	seen map[uint64]struct{}
	// replaced is true if an entry replaced a folder or link, so that folders may be missing at the end.
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
		if err := w.checkLimits(); err != nil {
			return err
		}
		if err := w.readAccounts(header, reader); err != nil {
			return damaged(w.what, err)
		}
	}
}

// checkLimits checks the work and memory for an image's layers.
func (w *walk) checkLimits() error {
	switch {
	case w.examination.entries+w.facts.entries > w.limits.LayerEntries:
		return w.tooMany()
	case w.tree.linkBytes > w.limits.LinkBytes:
		return fmt.Errorf("the targets of the symbolic links of %s are longer than %s together, which is the limit: %w", w.what, resource.FormatBytes(w.limits.LinkBytes), errdefs.ErrResourceExhausted)
	case w.steps+w.tree.steps > w.limits.PathSteps:
		return fmt.Errorf("the names in the image's layers have more than %d path elements together, including links, which is the limit: %w", w.limits.PathSteps, errdefs.ErrResourceExhausted)
	}
	return nil
}

// entry checks one entry of the layer and unpacks it.
func (w *walk) entry(header *tar.Header) error {
	if leadsOut(header.Name) {
		return invalid("%s has the name %q, which leads out of the container", w.what, header.Name)
	}
	// Engines compare names as they are written: "/a" and "a" are different.
	written := path.Clean(header.Name)
	key := w.tree.key(0, written)
	if _, ok := w.seen[key]; ok {
		return invalid("%s has %q twice, which engines refuse to unpack; build the layer with each file once", w.what, header.Name)
	}
	w.seen[key] = struct{}{}
	if header.Typeflag == tar.TypeXGlobalHeader || written == "." {
		return nil // The root folder always exists.
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
			return invalid("%s has %q, which is the container's root and can only be a folder", w.what, header.Name)
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
	return w.placeEntry(header, rooted)
}

func (w *walk) tooLong(rooted string) error {
	if length := len(rooted) - 1; length > maxLayerName {
		return invalid("%s has a name of %d bytes, and the limit is %d; use shorter names", w.what, length, maxLayerName)
	}
	for element := range strings.SplitSeq(rooted, "/") {
		if len(element) > maxElement {
			return invalid("%s has a name with an element of %d bytes, %q…, and the limit is %d; use shorter names", w.what, len(element), element[:32], maxElement)
		}
	}
	return nil
}

// parents creates the folders above an entry if the lowest of them does not exist. Anything else there stays, as with
// engines.
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
		if err := w.tree.place(found, node{kind: folder}); err != nil {
			return w.tooDeep(header)
		}
	}
	return nil
}

// noFolder is the error for an entry below something that is not a folder.
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
				return invalid("%s has %q, but %q above it is a symbolic link to %s, where the same layer has no folder yet; engines unpack each layer alone, so add that folder to the layer first, or leave the link out", w.what, header.Name, dir[:end], shortened(target))
			}
		case deleted:
			return invalid("%s has %q, but deletes %q above it; add that folder to the layer after its deletion", w.what, header.Name, dir[:end])
		default:
			return invalid("%s has %q, but %q above it is not a folder in the layer; build the layer with only one of them", w.what, header.Name, dir[:end])
		}
	}
	return invalid("%s has %q, but no folder above it; build the layer with its folders", w.what, header.Name)
}

func (w *walk) tooDeep(header *tar.Header) error {
	return invalid("%s has %s, whose path is longer than %d bytes with its symbolic links resolved; use shorter names", w.what, shortened(header.Name), maxLayerName)
}

// hide marks a folder as opaque: nothing of lower layers is visible in it.
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

// delete hides the file of that name in lower layers.
func (w *walk) delete(header *tar.Header, hidden, rooted string) error {
	if hidden == "" || hidden == "." || hidden == ".." {
		return invalid("%s has %q, a deletion without a name; build the layer without it", w.what, header.Name)
	}
	found, err := w.tree.find(rooted, false)
	switch {
	case err != nil:
		return w.noFolder(header, path.Dir(rooted)+"/")
	case found.node.kind != absent:
		return invalid("%s has %q and deletes it with %q, which engines refuse to unpack; build the layer with only one of them", w.what, strings.TrimPrefix(rooted, "/"), header.Name)
	}
	if w.tree.place(found, node{kind: deleted}) != nil {
		return w.tooDeep(header)
	}
	return nil
}

// placeEntry replaces what is at an entry's path with the entry. Two folders become one.
func (w *walk) placeEntry(header *tar.Header, rooted string) error {
	found, err := w.tree.find(rooted, false)
	if err != nil {
		return w.noFolder(header, rooted)
	}
	if before := found.node.kind; before == folder && header.Typeflag == tar.TypeDir {
		return w.attributes(header, folder)
	} else if before != absent {
		w.tree.remove(found)
		w.replaced = w.replaced || before == folder || before == symlink
		// A link above may now lead to something that was replaced.
		if found, err = w.tree.find(rooted, false); err != nil {
			return w.noFolder(header, rooted)
		}
	}
	made, err := w.node(header)
	if err != nil {
		return err
	}
	if w.tree.place(found, made) != nil {
		return w.tooDeep(header)
	}
	return w.attributes(header, made.kind)
}

// node is what an entry unpacks to.
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
			return node{}, invalid("%s links %q to a name of %d bytes, which must be 1 to %d; build the layer without it", w.what, header.Name, len(target), maxTarget)
		}
		return w.tree.link(header.Linkname), nil
	}
	return node{}, invalid("%s has %q as an entry of the type %q, which engines do not unpack; build the layer as a plain tar file", w.what, header.Name, header.Typeflag)
}

func (w *walk) hardLink(header *tar.Header) (node, error) {
	found, err := w.tree.find(path.Join("/", header.Linkname), false)
	switch {
	case err != nil || found.node.kind == absent:
		return node{}, invalid("%s links %q to %q, which does not precede it in the same layer; engines unpack each layer alone, so put a copy of the file into this layer, or build both in one step", w.what, header.Name, header.Linkname)
	case found.node.kind == folder:
		return node{}, invalid("%s links %q to the folder %q, which file systems do not allow; use a symbolic link", w.what, header.Name, header.Linkname)
	}
	return found.node, nil
}

// checkFolders reads a layer again in which an entry replaced a folder: engines set the times of every folder at the end,
// and fail if one is missing.
func (w *walk) checkFolders(ctx context.Context, reader *tar.Reader) error {
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
			return invalid("%s has the folder %q and later something else in its place; build the layer with only one of them", w.what, header.Name)
		}
		if err := w.checkLimits(); err != nil {
			return err
		}
	}
}

func leadsOut(name string) bool {
	relative := path.Clean(strings.TrimLeft(name, "/"))
	return relative == ".." || strings.HasPrefix(relative, "../")
}
