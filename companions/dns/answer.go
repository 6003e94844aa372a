package dns

import (
	"math/rand/v2"
	"net"
	"slices"
	"strings"

	"github.com/miekg/dns"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// ServeDNS answers one query.
func (c *Companion) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	answer := c.answer(query)
	size := dns.MinMsgSize
	if extended := query.IsEdns0(); extended != nil {
		size = max(size, int(extended.UDPSize()))
		answer.SetEdns0(uint16(min(size, 4096)), false)
	}
	if w.RemoteAddr().Network() == "udp" {
		answer.Truncate(min(size, 4096))
	}
	_ = w.WriteMsg(answer)
}

// answer is the complete answer to a query.
func (c *Companion) answer(query *dns.Msg) *dns.Msg {
	answer := new(dns.Msg)
	answer.SetReply(query)
	if query.Opcode != dns.OpcodeQuery || len(query.Question) != 1 {
		answer.Rcode = dns.RcodeNotImplemented
		return answer
	}
	question := query.Question[0]
	domain := dns.Fqdn(strings.ToLower(c.config.Domain))
	name := strings.ToLower(question.Name)
	if !dns.IsSubDomain(domain, name) || question.Qclass != dns.ClassINET {
		answer.Rcode = dns.RcodeRefused
		return answer
	}
	services := c.services.Load()
	if services == nil {
		answer.Rcode = dns.RcodeServerFailure
		return answer
	}
	answer.Authoritative = true
	below := strings.TrimSuffix(strings.TrimSuffix(name, domain), ".")
	found := c.find(*services, below, question, answer)
	if !found && below != "" && below != "service" && below != "instance" {
		answer.Rcode = dns.RcodeNameError
	}
	if len(answer.Answer) == 0 {
		answer.Ns = append(answer.Ns, c.soa(domain))
	}
	if below == "" && question.Qtype == dns.TypeSOA {
		answer.Answer, answer.Ns = []dns.RR{c.soa(domain)}, nil
	}
	return answer
}

// find adds to the answer; it reports whether the name exists.
func (c *Companion) find(services map[string]*apiv1.Service, below string, question dns.Question, answer *dns.Msg) bool {
	if name, ok := strings.CutSuffix(below, ".service"); ok {
		port := ""
		if rest, isPort := strings.CutPrefix(name, "_"); isPort {
			if before, after, found := strings.Cut(rest, "._tcp."); found {
				port, name = before, after
			}
		}
		service := services[name]
		if service == nil {
			return false
		}
		c.service(service, port, question, answer)
		return true
	}
	name, ok := strings.CutSuffix(below, ".instance")
	if !ok {
		return false
	}
	// An id and a service's name may contain dots.
	for i := range len(name) {
		if name[i] != '.' || services[name[i+1:]] == nil {
			continue
		}
		for _, endpoint := range services[name[i+1:]].GetEndpoints() {
			if strings.EqualFold(endpoint.GetId(), name[:i]) {
				if record := c.address(question.Name, endpoint); record != nil && asks(question, record) {
					answer.Answer = append(answer.Answer, record)
				}
				return true
			}
		}
	}
	return false
}

// service answers for a service: addresses, or with SRV also ports. The order is random, which spreads clients that take the
// first.
func (c *Companion) service(service *apiv1.Service, port string, question dns.Question, answer *dns.Msg) {
	endpoints := routable(service)
	rand.Shuffle(len(endpoints), func(i, j int) { endpoints[i], endpoints[j] = endpoints[j], endpoints[i] })
	seen := map[string]bool{}
	for _, endpoint := range endpoints {
		target := strings.ToLower(endpoint.GetId() + "." + service.GetName() + ".instance." + dns.Fqdn(c.config.Domain))
		number := endpoint.GetPort()
		if port != "" {
			number = portNamed(endpoint, port)
		}
		if question.Qtype == dns.TypeSRV || question.Qtype == dns.TypeANY {
			record := c.address(target, endpoint)
			if number < 1 || record == nil {
				continue
			}
			answer.Answer = append(answer.Answer, &dns.SRV{
				Hdr: c.header(question.Name, dns.TypeSRV), Priority: 0, Weight: uint16(min(endpoint.GetWeight(), 65535)),
				Port: uint16(number), Target: target,
			})
			answer.Extra = append(answer.Extra, record)
			continue
		}
		if record := c.address(question.Name, endpoint); record != nil && asks(question, record) && !seen[endpoint.GetAddress()] {
			seen[endpoint.GetAddress()] = true
			answer.Answer = append(answer.Answer, record)
		}
	}
}

// routable lists the healthy endpoints, or if there is none the unhealthy ones.
func routable(service *apiv1.Service) []*apiv1.Endpoint {
	open := slices.DeleteFunc(slices.Clone(service.GetEndpoints()), func(e *apiv1.Endpoint) bool { return e.GetWeight() < 1 })
	healthy := slices.DeleteFunc(slices.Clone(open), func(e *apiv1.Endpoint) bool { return e.GetState() == apiv1.Endpoint_UNHEALTHY })
	if len(healthy) > 0 {
		return healthy
	}
	return open
}

// portNamed is the port of an endpoint by name, without regard to case.
func portNamed(endpoint *apiv1.Endpoint, name string) int32 {
	for known, port := range endpoint.GetPorts() {
		if strings.EqualFold(known, name) {
			return port
		}
	}
	return 0
}

func asks(question dns.Question, record dns.RR) bool {
	return question.Qtype == record.Header().Rrtype || question.Qtype == dns.TypeANY
}

// address is the A or AAAA record of an endpoint; nil if it has no address.
func (c *Companion) address(name string, endpoint *apiv1.Endpoint) dns.RR {
	ip := net.ParseIP(endpoint.GetAddress())
	if four := ip.To4(); four != nil {
		return &dns.A{Hdr: c.header(name, dns.TypeA), A: four}
	}
	if ip != nil {
		return &dns.AAAA{Hdr: c.header(name, dns.TypeAAAA), AAAA: ip}
	}
	return nil
}

func (c *Companion) header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: uint32(c.config.TTL.Seconds())}
}

// soa sets how long a negative answer may be cached: as long as a positive one.
func (c *Companion) soa(domain string) dns.RR {
	ttl := uint32(c.config.TTL.Seconds())
	return &dns.SOA{
		Hdr: c.header(domain, dns.TypeSOA), Ns: "registry." + domain, Mbox: "operator." + domain,
		Serial: 1, Refresh: 60, Retry: 60, Expire: 3600, Minttl: ttl,
	}
}
