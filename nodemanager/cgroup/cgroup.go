// Package cgroup makes, limits, measures and kills control groups, of version 1, of version 2, and of the hybrid
// of both. It writes the kernel's files directly: what a node needs of them is little, and a library that also
// speaks to systemd and loads BPF programs costs every NodeManager megabytes.
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
)

// The controllers that a group needs.
const (
	cpu     = "cpu"
	cpuacct = "cpuacct"
	memory  = "memory"
	pids    = "pids"
	freezer = "freezer"
)

// Hierarchy is the host's tree, or trees, of control groups.
type Hierarchy struct {
	// unified is where version 2 is mounted; with version 1 it may be there too, for cgroup.kill alone.
	unified string
	// v1 has the mount point of each controller of version 1; empty means version 2.
	v1 map[string]string
}

// Detect finds what the host has. ErrFailedPrecondition if a controller is missing.
func Detect() (*Hierarchy, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("reading mounts: %w", err)
	}
	h := &Hierarchy{v1: make(map[string]string)}
	for _, mount := range mounts {
		if mount.FSType == "cgroup2" {
			h.unified = mount.Mountpoint
			continue
		}
		for _, option := range strings.Split(mount.VFSOptions, ",") {
			switch option {
			case cpu, cpuacct, memory, pids, freezer:
				h.v1[option] = mount.Mountpoint
			}
		}
	}
	needed := []string{cpu, cpuacct, memory, pids, freezer}
	if len(h.v1) == 0 {
		needed = []string{cpu, memory, pids}
	}
	var missing []string
	for _, controller := range needed {
		if len(h.v1) > 0 && h.v1[controller] == "" || len(h.v1) == 0 && !h.has(controller) {
			missing = append(missing, controller)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("this host has no control groups for %s: %w", strings.Join(missing, ", "), errdefs.ErrFailedPrecondition)
	}
	return h, nil
}

// has reports whether version 2 has a controller.
func (h *Hierarchy) has(controller string) bool {
	if h.unified == "" {
		return false
	}
	controllers, err := os.ReadFile(filepath.Join(h.unified, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(controllers)), controller)
}

// Version is 1 or 2. A hybrid, whose controllers are those of version 1, is 1.
func (h *Hierarchy) Version() int {
	if len(h.v1) > 0 {
		return 1
	}
	return 2
}

// Limits of a group; zero is none.
type Limits struct {
	// CPUMillis are thousandths of a core: a hard quota, and the share when there is not enough for all.
	CPUMillis int64
	// MemoryBytes bounds memory; there is no swap beyond it.
	MemoryBytes int64
	Pids        int64
}

// Create makes the group at path, with its parents, and sets its limits. One that exists gets the limits.
func (h *Hierarchy) Create(path string, limits Limits) (*Group, error) {
	g := h.Open(path)
	if h.Version() == 2 {
		if err := h.delegate(path); err != nil {
			return nil, err
		}
	}
	for _, dir := range g.dirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, precondition(err)
		}
	}
	if err := g.limit(limits); err != nil {
		return nil, errors.Join(precondition(err), g.Delete())
	}
	return g, nil
}

// precondition marks what a NodeManager that is not root runs into.
func precondition(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control groups cannot be changed here (%w): %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

// delegate hands the controllers down to the group at path.
func (h *Hierarchy) delegate(path string) error {
	dir := h.unified
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if err := write(dir, "cgroup.subtree_control", "+cpu +memory +pids"); err != nil {
			return precondition(err)
		}
		dir = filepath.Join(dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return precondition(err)
		}
	}
	return nil
}

// Open is the group at path, whether it exists or not.
func (h *Hierarchy) Open(path string) *Group {
	g := &Group{paths: make(map[string]string)}
	for controller, mount := range h.v1 {
		g.paths[controller] = filepath.Join(mount, path)
	}
	if h.unified != "" {
		g.unified = filepath.Join(h.unified, path)
	}
	return g
}

// OfProcess is the group that a process is in.
func (h *Hierarchy) OfProcess(pid int) (*Group, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, errors.Join(err, errdefs.ErrNotFound))
	}
	return h.parse(text), nil
}

// parse reads the lines of /proc/PID/cgroup: id:controllers:path.
func (h *Hierarchy) parse(text []byte) *Group {
	g := &Group{paths: make(map[string]string)}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[1] == "" {
			// In a hybrid most engines leave their containers in the root.
			if h.unified != "" && parts[2] != "/" {
				g.unified = filepath.Join(h.unified, parts[2])
			}
			continue
		}
		for _, controller := range strings.Split(parts[1], ",") {
			if mount, ok := h.v1[controller]; ok {
				g.paths[controller] = filepath.Join(mount, parts[2])
			}
		}
	}
	return g
}

// Group is one control group.
type Group struct {
	// paths are the folders of version 1 by controller; empty with version 2.
	paths   map[string]string
	unified string
}

func (g *Group) v2() bool { return len(g.paths) == 0 }

// dirs are the group's folders.
func (g *Group) dirs() []string {
	dirs := slices.Compact(slices.Sorted(maps.Values(g.paths)))
	if g.unified != "" {
		dirs = append(dirs, g.unified)
	}
	return dirs
}

// Add moves a process into the group; its later children are born in it.
func (g *Group) Add(pid int) error {
	for _, dir := range g.dirs() {
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// Pids are the processes of the group and of those below it; none if the group does not exist.
func (g *Group) Pids() ([]int, error) {
	root := g.paths[pids]
	if g.v2() {
		root = g.unified
	}
	var all []int
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoDevice) {
			return nil
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				all = append(all, pid)
			}
		}
		return err
	})
	return all, err
}

// Delete removes an empty group. One that does not exist is not an error.
func (g *Group) Delete() error {
	var failed error
	for _, dir := range g.dirs() {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
