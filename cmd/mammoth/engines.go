package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/localize"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/docker"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/fake"
	"github.com/mammoth-os/mammoth/nodemanager/runtime/process"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// These are the runtimes of images that a node can have.
const (
	runtimeDocker = "docker"
	runtimeFake   = "fake"
)

// engines are a node's runtimes.
type engines struct {
	runtimes map[corev1.ContainerSpec_Runtime]runtime.Runtime
	closers  []io.Closer
	// stateDirs are those of the process runtime.
	stateDirs nodemanager.StateDirs
	// docker is nil if the fake runtime runs images.
	docker *docker.Runtime
}

// engineSettings identify a node's containers.
type engineSettings struct {
	dir, zone, node     string
	runtime, dockerHost string
	portRange           string
	allowHostNetwork    bool
	// address is the address of published ports.
	address string
	// fake is the engine that the fake nodes of one process share.
	fake *fake.Engine
}

// validate refuses unknown values.
func (s engineSettings) validate() error {
	if s.runtime != runtimeDocker && s.runtime != runtimeFake {
		return usagef("--runtime: %q is not a runtime; it is docker or fake", s.runtime)
	}
	_, err := dockerSocket(s.dockerHost)
	return err
}

// open opens the runtimes. The Docker Engine need not answer: a node without it is unhealthy, and recovers. Images are
// pulled from registry.
func (s engineSettings) open(registry string, log *slog.Logger) (*engines, error) {
	ports, err := network.ParseRange(s.portRange)
	if err != nil {
		return nil, usagef("--port-range: %w", err)
	}
	leases := network.NewLeases(ports, nil)
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, which application masters are started with: %w", err)
	}
	e := &engines{runtimes: map[corev1.ContainerSpec_Runtime]runtime.Runtime{}}
	logs := filepath.Join(s.dir, "logs")
	switch s.runtime {
	case runtimeDocker:
		socket, err := dockerSocket(s.dockerHost)
		if err != nil {
			return nil, err
		}
		engine, err := docker.New(docker.Config{
			Socket: socket, Zone: s.zone, Node: s.node, Registry: registry, BindAddress: s.address, Leases: leases,
			AllowHostNetwork: s.allowHostNetwork, LogDir: logs, Logger: log,
		})
		if err != nil {
			return nil, err
		}
		e.docker = engine
		e.runtimes[corev1.ContainerSpec_DOCKER] = engine
		e.closers = append(e.closers, engine)
	case runtimeFake:
		e.runtimes[corev1.ContainerSpec_DOCKER] = fake.New(fake.Config{
			Engine: s.fake, Node: s.node, Leases: leases, Listen: true, AllowHostNetwork: s.allowHostNetwork,
		})
	}
	processes, err := process.New(process.Config{
		Dir: filepath.Join(s.dir, "processes"), LogDir: logs, StateDirs: filepath.Join(s.dir, "companions"), Zone: s.zone, Node: s.node, Self: self, Leases: leases,
		// The fake runtime needs neither root nor quotas.
		Unlimited: s.runtime == runtimeFake, Logger: log,
	})
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	e.runtimes[corev1.ContainerSpec_PROCESS], e.stateDirs = processes, processes
	e.closers = append(e.closers, processes)
	return e, nil
}

// close closes the engines; containers keep running.
func (e *engines) close() error {
	var failures []error
	for _, closer := range e.closers {
		failures = append(failures, closer.Close())
	}
	return errors.Join(failures...)
}

// dockerSocket is the path of the engine's socket.
func dockerSocket(host string) (string, error) {
	if host == "" {
		host = os.Getenv("DOCKER_HOST")
	}
	path := strings.TrimPrefix(host, "unix://")
	if path != "" && !filepath.IsAbs(path) {
		return "", usagef("%q is not where a Docker Engine of this machine listens; write unix:///var/run/docker.sock", host)
	}
	return path, nil
}

// newLayers opens the node's own registry, which fetches from the zone's images.
func newLayers(dir, upstream string, log *slog.Logger) (nodemanager.Layers, error) {
	return localize.New(localize.Config{Dir: filepath.Join(dir, "layers"), Upstream: upstream, Logger: log})
}

// parseAttribute detects the type of a value: true and false are flags, numbers are numbers.
func parseAttribute(text string) *corev1.Attribute {
	if flag, err := strconv.ParseBool(text); err == nil && len(text) > 1 {
		return &corev1.Attribute{Value: &corev1.Attribute_Flag{Flag: flag}}
	}
	if number, err := strconv.ParseFloat(text, 64); err == nil {
		return &corev1.Attribute{Value: &corev1.Attribute_Number{Number: number}}
	}
	return &corev1.Attribute{Value: &corev1.Attribute_Text{Text: text}}
}
