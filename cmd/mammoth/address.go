package main

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// addressKind is the form of an address in a flag; it follows the flag in --help.
type addressKind string

const (
	// atIP is an IP address without a port.
	atIP addressKind = "IP"
	// atPort is a port of a host, to connect to.
	atPort addressKind = "HOST:PORT"
	// atPorts are ports to connect to: the first one that answers.
	atPorts addressKind = "HOST:PORT[,...]"
	// onPort is a port to listen on, of all addresses of this machine if it names none.
	onPort addressKind = "[HOST]:PORT"
	// onIPPort is a port to listen on, of one address.
	onIPPort addressKind = "IP:PORT"
)

// addressHints are examples of valid addresses.
var addressHints = map[addressKind]string{
	atIP:     "an IP address; write one as in 192.0.2.10",
	atPort:   "an address; write HOST:PORT as in 127.0.0.1:7070",
	atPorts:  "an address; write HOST:PORT as in 127.0.0.1:7070, or several with commas between",
	onPort:   "an address; write HOST:PORT as in 127.0.0.1:7070",
	onIPPort: "an address; write IP:PORT as in 127.0.0.1:8080",
}

func (k addressKind) check(text string) error {
	if k == atIP {
		_, err := netip.ParseAddr(text)
		return err
	}
	if k == atPorts {
		for _, address := range strings.Split(text, ",") {
			if err := atPort.check(address); err != nil {
				return err
			}
		}
		return nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return err
	}
	_, notIP := netip.ParseAddr(host)
	switch {
	case notIP == nil, k == onPort && host == "":
		return nil
	case k == onIPPort:
		return notIP
	}
	return checkHost(host)
}

var hostLabel = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)

// checkHost refuses what cannot be the name of a host. A name that ends in a number is an invalid IP address.
func checkHost(name string) error {
	labels := strings.Split(strings.TrimSuffix(name, "."), ".")
	for _, label := range labels {
		if !hostLabel.MatchString(label) {
			return fmt.Errorf("%q cannot be the name of a host", name)
		}
	}
	if _, err := strconv.ParseUint(labels[len(labels)-1], 10, 64); err == nil {
		return fmt.Errorf("%q is no IP address", name)
	}
	return nil
}

// addressFlag is an address in a flag; empty is none.
type addressFlag struct {
	into *string
	kind addressKind
}

// addressVar adds a flag for an address; an invalid one is refused with a sentence.
func addressVar(flags *pflag.FlagSet, flag addressFlag, name, otherwise, usage string) {
	*flag.into = otherwise
	flags.Var(flag, name, usage)
}

func (f addressFlag) String() string {
	if f.into == nil {
		return ""
	}
	return *f.into
}

func (f addressFlag) Set(text string) error {
	if err := f.kind.check(text); text != "" && err != nil {
		return err
	}
	*f.into = text
	return nil
}

func (f addressFlag) Type() string { return string(f.kind) }

// checkServers refuses invalid addresses in a list of servers.
func checkServers(flag string, servers []string) error {
	for _, server := range servers {
		if atPort.check(server) != nil {
			return usagef("%s: %q is not %s", flag, server, addressHints[atPort])
		}
	}
	return nil
}
