package images

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

const (
	// maxLookups is how many names an engine follows in one path, including those in links.
	maxLookups = 255
	// maxInside is the longest path in a container, below the directory where an engine mounts it.
	maxInside = 3999
)

// rootfs is a container's root: the trees of its layers over each other, lowest first.
type rootfs []*tree

// merged is a folder of the root: the same folder in several trees, topmost first.
type merged []piece

type piece struct {
	tree *tree
	id   int32
}

func (r rootfs) top() merged {
	var all merged
	for _, layer := range slices.Backward(r) {
		all = append(all, piece{layer, 0})
	}
	return all
}

// at looks a name up in the folder: its kind, the parts of a folder, the target of a link.
func (m merged) at(name string) (kind, merged, string) {
	var below merged
	for _, part := range m {
		found := part.tree.at(part.id, name)
		switch {
		case found.kind == absent:
			continue
		case found.kind == folder:
			below = append(below, piece{part.tree, found.id})
			if part.tree.folders[found.id].opaque {
				return folder, below, ""
			}
			continue
		case below != nil:
			return folder, below, ""
		case found.kind == symlink:
			return symlink, nil, part.tree.targets[found.id]
		case found.kind == deleted:
			return absent, nil, ""
		}
		return found.kind, nil, ""
	}
	if below != nil {
		return folder, below, ""
	}
	return absent, nil, ""
}

// kindAt is the kind of a path that leads through no link.
func (r rootfs) kindAt(rooted string) kind {
	in, found := r.top(), folder
	for name := range strings.SplitSeq(strings.Trim(rooted, "/"), "/") {
		found, in, _ = in.at(name)
	}
	return found
}

// fileAbove is the error of a path that leads through a file.
type fileAbove string

func (f fileAbove) Error() string { return fmt.Sprintf("%q above it is a file", string(f)) }

// follow resolves a path within the container, as engines do: what does not exist is kept as it is written. It fails with
// errLoop and with fileAbove.
func (r rootfs) follow(rooted string) (resolved string, what kind, err error) {
	type level struct {
		name string
		what kind
		in   merged
	}
	at := []level{{"", folder, r.top()}}
	rest := strings.TrimPrefix(path.Clean(rooted), "/")
	for looked := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		last := at[len(at)-1]
		if looked++; looked > maxLookups {
			return "", absent, errLoop
		}
		switch {
		case name == "" || name == ".":
			continue
		case name == "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		found, in, target := last.in.at(name)
		switch {
		case last.what == regular || last.what == special:
			return "", absent, fileAbove(joined(at, func(l level) string { return l.name }))
		case found != symlink:
			at = append(at, level{name, found, in})
			continue
		case strings.HasPrefix(target, "/"):
			at = at[:1]
		}
		rest = target + "/" + rest
	}
	return joined(at, func(l level) string { return l.name }), at[len(at)-1].what, nil
}

func joined[T any](at []T, name func(T) string) string {
	var names []string
	for _, one := range at {
		names = append(names, name(one))
	}
	return "/" + strings.TrimPrefix(strings.Join(names, "/"), "/")
}

// withEngineFiles adds the files that an engine puts into every container, in place of links and files there.
func (r rootfs) withEngineFiles() rootfs {
	own := newTree()
	put := func(rooted string, what node) {
		// This cannot fail in a tree with only these names.
		if found, err := own.find(rooted, false); err == nil && found.node.kind == absent {
			_ = own.place(found, what)
		}
	}
	for _, rooted := range []string{"/dev", "/dev/pts", "/dev/shm", "/etc", "/proc", "/sys"} {
		put(rooted, node{kind: folder})
	}
	for _, rooted := range []string{"/.dockerenv", "/dev/console", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
		if r.kindAt(rooted) != folder {
			put(rooted, node{kind: regular})
		}
	}
	if r.kindAt("/etc/mtab") != folder {
		put("/etc/mtab", own.link("/proc/mounts"))
	}
	return append(slices.Clone(r), own)
}

// checkPaths refuses settings that name something that is not a folder in the image or cannot be one in a container, and an
// image with folders where engines read or put files.
func (c Config) checkPaths(image rootfs) error {
	root := image.withEngineFiles()
	if c.WorkingDir != "" {
		if err := root.checkPath(c.WorkingDir, noWorkingDir); err != nil {
			return settingError("WORKDIR", "is %s, %v", shortened(c.WorkingDir), err)
		}
	}
	covered := map[string]bool{}
	for _, volume := range c.Volumes {
		if err := root.checkPath(volume, noVolume); err != nil {
			return settingError("VOLUME", "has %s, %v", shortened(volume), err)
		}
		covered[path.Join("/", volume)] = true
	}
	for _, name := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
		if root.kindAt(name) == folder && !covered[name] {
			return invalid("the image has a folder at %s, where engines put a file of their own; remove the folder from the image", name)
		}
	}
	for _, name := range []string{"/etc/passwd", "/etc/group"} {
		if _, what, err := root.follow(name); err == nil && what == folder {
			return invalid("the image has a folder at %s, which engines read as a file; make it a file, or remove it from the image", name)
		}
	}
	return nil
}

// checkPath refuses a path that is not a folder in the image, or leads to where none may be.
func (r rootfs) checkPath(written string, refused func(resolved string) string) error {
	resolved, what, err := r.follow(path.Join("/", written))
	var file fileAbove
	switch {
	case errors.As(err, &file):
		return fmt.Errorf("but %q is a file in the image or in every container; name a folder, or a path where nothing is", string(file))
	case err != nil:
		return fmt.Errorf("which leads through more than %d names, including those in symbolic links; name the folder itself", maxLookups)
	case what == regular || what == special:
		return fmt.Errorf("but %q is a file in the image or in every container; name a folder, or a path where nothing is", resolved)
	case len(resolved) > maxInside:
		return fmt.Errorf("which is a path of %d bytes; the limit is %d", len(resolved), maxInside)
	}
	if why := refused(resolved); why != "" {
		led := ""
		if resolved != path.Join("/", written) {
			led = fmt.Sprintf("which leads to %q, ", resolved)
		}
		return fmt.Errorf("%s%s; name a folder of the program's own", led, why)
	}
	return nil
}

const kernelFolder = "where there is no folder and the kernel does not allow one"

// noWorkingDir is why no container can start in a folder; empty if one can.
func noWorkingDir(resolved string) string {
	device, below, _ := strings.Cut(strings.TrimPrefix(resolved, "/dev/"), "/")
	switch {
	case !kernelHas(resolved):
		return kernelFolder
	case !strings.HasPrefix(resolved, "/dev/"):
	case slices.Contains([]string{"null", "zero", "full", "random", "urandom", "tty", "ptmx", "stdin", "stdout", "stderr"}, device):
		return "where every container has a device"
	case below != "" && (device == "pts" || device == "mqueue"):
		return kernelFolder
	}
	return ""
}

// noVolume is why no volume can be mounted at a path; empty if one can.
func noVolume(resolved string) string {
	device, below, _ := strings.Cut(strings.TrimPrefix(resolved, "/dev/"), "/")
	switch {
	case resolved == "/" || resolved == "/dev" || resolved == "/proc" || strings.HasPrefix(resolved, "/proc/"):
		return "which would hide what every container needs at " + resolved
	case !kernelHas(resolved):
		return kernelFolder
	case !strings.HasPrefix(resolved, "/dev/"):
	case device == "null" || device == "ptmx":
		return "which would hide what every container needs at /dev/" + device
	case below != "" && (device == "pts" || device == "mqueue"):
		return kernelFolder
	}
	return ""
}

// kernelHas reports whether the kernel has a folder at a path below /proc or /sys, where none can be created. This machine's
// kernel stands for those of the nodes.
func kernelHas(resolved string) bool {
	inProc, isProc := strings.CutPrefix(resolved, "/proc/")
	if !isProc && !strings.HasPrefix(resolved, "/sys/") {
		return true
	}
	if process, below, _ := strings.Cut(inProc, "/"); isProc && slices.Contains([]string{"self", "thread-self", "1"}, process) {
		// Links lead out of these folders, to this process's own files, so they are not looked up.
		first, _, _ := strings.Cut(below, "/")
		return slices.Contains([]string{"", "attr", "cwd", "fd", "fdinfo", "map_files", "net", "ns", "root", "task"}, first)
	} else if isProc && strings.Trim(process, "0123456789") == "" {
		return false // Another process, which a container may not have.
	}
	if group, ok := strings.CutPrefix(resolved, "/sys/fs/cgroup/"); ok && !strings.Contains(group, "/") {
		return true // With cgroups v1 this is a file system of the container's own.
	}
	found, err := os.Stat(resolved)
	return err == nil && found.IsDir()
}
