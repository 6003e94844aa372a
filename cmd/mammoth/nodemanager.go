package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/nodemanager"
	"github.com/mammoth-os/mammoth/nodemanager/network"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// nodeSettings are the settings of a NodeManager.
type nodeSettings struct {
	engineSettings
	cpu, memory, disk string

	resourceManager, listen string
	attributes, extended    []string
	logRetention            time.Duration
	metricsListen           string
}

// shared adds the flags that `mammoth up` also has.
func (s *nodeSettings) shared(flags *pflag.FlagSet) {
	flags.StringVar(&s.portRange, "port-range", "20000-29999", "the host ports that instances are given")
	flags.StringVar(&s.runtime, "runtime", "docker", "what runs images: docker, or fake, which only pretends")
	flags.StringVar(&s.dockerHost, "docker-host", "", "where the Docker Engine listens (default: DOCKER_HOST, or its usual socket)")
	flags.StringArrayVar(&s.attributes, "attribute", nil, "an attribute for placement constraints, NAME=VALUE; repeatable")
	flags.StringArrayVar(&s.extended, "resource", nil, "how much the node has of an extended resource, NAME=COUNT as in gpu=2; repeatable")
	s.logRetention = 24 * time.Hour
	lengthVar(flags, &s.logRetention, "log-retention", "how long the output of an ended container is kept")
}

func (c *daemonCommands) nodeManagerCommand() *cobra.Command {
	s := &nodeSettings{}
	daemon := &daemonFlags{}
	cmd := &cobra.Command{
		Use:   "nodemanager",
		Short: "Run a node's NodeManager",
		Long: `Nodemanager runs the containers that the ResourceManager grants on this machine.

Every setting is a flag, and can stand in the file that --config names, where
--port-range is portRange.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := daemon.load(c.streams, cmd)
			if err != nil {
				return err
			}
			if s.dir == "" {
				return usagef("`mammoth nodemanager` needs --dir, a folder for what must outlive it")
			}
			if s.node == "" {
				if s.node, err = os.Hostname(); err != nil {
					return fmt.Errorf("find out this machine's name; give the node one with --node-id: %w", err)
				}
			}
			c.spareMemory(smallHeap)
			node, err := newNode(*s, log)
			if err != nil {
				return err
			}
			defer node.close()
			fmt.Fprintf(c.out, "the NodeManager of %s listens at %s\n", s.node, node.Address())
			return node.Run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	s.shared(flags)
	flags.StringVar(&s.dir, "dir", "", "a folder for what must outlive it")
	flags.StringVar(&s.node, "node-id", "", "the node's name, the same at every start (default: this machine's)")
	flags.StringVar(&s.zone, "zone", "", "what containers of this node are labelled with (default: made up at the first start)")
	addressVar(flags, addressFlag{&s.resourceManager, atPorts}, "resourcemanager", defaultServer, "the ResourceManager's address; of several the first that answers")
	addressVar(flags, addressFlag{&s.address, atIP}, "address", "", "the address at which instances are reached (default: from which this machine reaches the ResourceManager)")
	addressVar(flags, addressFlag{&s.listen, onPort}, "listen", "", "the address for application masters and the ResourceManager (default: any port of --address)")
	flags.StringVar(&s.cpu, "cpu", "", "cpu for containers, in cores or as in 500m (default: what is there, less some)")
	flags.StringVar(&s.memory, "memory", "", "memory for containers (default: what is there, less some)")
	flags.StringVar(&s.disk, "disk", "", "disk for containers (default: what is free, less some)")
	flags.BoolVar(&s.allowHostNetwork, "allow-host-network", false, "let containers use this machine's network")
	addressVar(flags, addressFlag{&s.metricsListen, onPort}, "metrics-listen", "", "the address for /metrics, /healthz and /readyz (default: none)")
	must(cmd.MarkFlagDirname("dir"))
	daemon.add(cmd, "info")
	return cmd
}

// capacity is the given cpu, memory and disk, and the extended resources; missing values of the first are zero, and measured.
func (s *nodeSettings) capacity() (resource.Vector, resource.Schema, error) {
	var v resource.Vector
	schema, err := parseExtended(s.extended, &v)
	read := func(name, text string, parse func(string) (int64, error), index int) error {
		if text == "" {
			return nil
		}
		n, err := positive(parse(text))
		if err != nil {
			return usagef("%s: %w", name, err)
		}
		v[index] = n
		return nil
	}
	return v, schema, errors.Join(err,
		read("cpu", s.cpu, resource.ParseCPU, resource.CPU),
		read("memory", s.memory, resource.ParseBytes, resource.Memory),
		read("disk", s.disk, resource.ParseBytes, resource.Disk),
	)
}

// parseExtended reads NAME=COUNT into a capacity.
func parseExtended(texts []string, into *resource.Vector) (schema resource.Schema, err error) {
	for _, text := range texts {
		name, count, _ := strings.Cut(text, "=")
		amount, err := strconv.ParseInt(count, 10, 64)
		if err != nil || amount <= 0 {
			return schema, usagef("--resource: %q is not an amount of a resource; write NAME=COUNT as in gpu=2", text)
		}
		if err := spec.CheckExtended(name, amount); err != nil {
			return schema, usagef("--resource: %w", err)
		}
		if _, twice := schema.Index(name); twice {
			return schema, usagef("--resource: %s is given twice", name)
		}
		var index int
		var ok bool
		if schema, index, ok = schema.With(name); !ok {
			return schema, usagef("--resource: a node has at most %d extended resources, and %d are given", resource.Size-resource.Extended, len(texts))
		}
		into[index] = amount
	}
	return schema, nil
}

// parseAttributes reads NAME=VALUE; a number or true and false are typed.
func parseAttributes(texts []string) (map[string]*corev1.Attribute, error) {
	attributes := map[string]*corev1.Attribute{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usagef("--attribute: %q is not an attribute; write NAME=VALUE", text)
		}
		attributes[name] = parseAttribute(value)
	}
	return attributes, nil
}

// node is a NodeManager and its parts.
type node struct {
	*nodemanager.NodeManager
	engines *engines
	unlock  func()
}

// newNode builds a NodeManager and listens.
func newNode(s nodeSettings, log *slog.Logger) (_ *node, err error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	ports, err := network.ParseRange(s.portRange)
	if err != nil {
		return nil, usagef("--port-range: %w", err)
	}
	capacity, schema, err := s.capacity()
	if err != nil {
		return nil, err
	}
	attributes, err := parseAttributes(s.attributes)
	if err != nil {
		return nil, err
	}
	// Engines publish ports there.
	found, err := nodemanager.ResolveAddresses(nodemanager.Config{ResourceManager: s.resourceManager, Address: s.address, Listen: s.listen})
	if err != nil {
		return nil, err
	}
	s.address, s.listen = found.Address, found.Listen
	n := &node{engines: &engines{}}
	if n.unlock, err = lockFolder(s.dir, "NodeManager"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err = s.keep(); err != nil {
		return nil, err
	}
	layers, err := newLayers(s.dir, s.resourceManager, log)
	if err != nil {
		return nil, err
	}
	engines, err := s.open(layers.Address(), log)
	if err != nil {
		return nil, err
	}
	n.engines = engines
	n.NodeManager, err = nodemanager.New(nodemanager.Config{
		Dir: s.dir, NodeID: s.node, ResourceManager: s.resourceManager, Listen: s.listen, Address: s.address,
		Capacity: capacity, Schema: schema, Attributes: attributes, Runtimes: n.engines.runtimes, StateDirs: n.engines.stateDirs, Layers: layers,
		HostNetwork: s.allowHostNetwork, PortCount: int64(ports.Len()), LogRetention: s.logRetention,
		Version: version, MetricsListen: s.metricsListen, Logger: log,
	})
	if err != nil {
		return nil, addressInUse(err, "listen")
	}
	return n, nil
}

// close closes everything; containers keep running.
func (n *node) close() {
	_ = n.engines.close()
	if n.unlock != nil {
		n.unlock()
	}
}

// nodeFile marks a folder as a node's.
const nodeFile = "node.json"

// nodeNotes are the stored engineSettings.
type nodeNotes struct {
	Zone       string `json:"zone"`
	Node       string `json:"node"`
	Runtime    string `json:"runtime"`
	DockerHost string `json:"dockerHost,omitempty"`
}

// keep stores the settings. A missing zone is that of the first start.
func (s *engineSettings) keep() error {
	path := filepath.Join(s.dir, nodeFile)
	before := &nodeNotes{Zone: newZoneName()}
	if err := keepNotes(path, before); err != nil {
		return err
	}
	if s.zone == "" {
		s.zone = before.Zone
	}
	return writeNotes(path, nodeNotes{Zone: s.zone, Node: s.node, Runtime: s.runtime, DockerHost: s.dockerHost})
}
