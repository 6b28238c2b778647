// Why the mesh itself refused something, in words: the codes of `x-heddle-refusal`, as docs/metrics.md has them.

const CODES: Record<string, string> = {
  "bad-request": "not HTTP, or HTTP that two readers could read differently",
  "bad-version": "neither HTTP/1.0 nor HTTP/1.1",
  "head-too-large": "the head of the request is too large",
  "head-timeout": "the head of the request did not end within 10 s",
  "no-route": "the service has HTTP rules and none of them is met",
  "dangling-target": "a rule leads to something that does not exist",
  "no-endpoints": "no workload behind the service is ready",
  "not-resolved": "a name that a ServiceEntry leads to has no address",
  "not-in-registry": "a Sidecar lets only what is known be called",
  "not-visible": "a Sidecar does not let this workload see the service",
  "all-ejected": "every workload behind the service was taken out for its errors",
  overflow: "a limit of a DestinationRule is reached",
  "port-not-declared": "the service has no such port",
  "unknown-address": "a virtual address that no service has",
  "connect-failed": "no endpoint accepted a connection",
  "tls-failed": "no endpoint could be talked to over TLS",
  "upstream-reset": "the connection ended before the answer",
  "bad-response": "the answer cannot be passed on",
  "cannot-upgrade": "the server offers no way to what the connection is to become",
  "fault-abort": "aborted on purpose by a fault rule",
  "fault-connection": "the connection is refused on purpose by a fault rule",
  timeout: "a rule’s timeout was over",
  "discovery-timeout": "the control plane did not answer about a new destination",
  "outside-unreachable": "a destination outside the mesh was not reached",
  "application-unreachable": "the workload’s own program does not accept connections",
  "connection-limit": "too many open connections",
  "memory-limit": "the sidecar is close to its limit on memory",
  "own-listener": "a connection to a port of the sidecar itself",
};

export function refusalInWords(code: string): string {
  return CODES[code] ?? code;
}

/** Done on purpose, and so no trouble. */
export function isOnPurpose(code: string): boolean {
  return code === "fault-abort" || code === "fault-connection";
}

export function answerInWords(answer: string): string {
  return { NXDOMAIN: "no such name", SERVFAIL: "nobody can tell", REFUSED: "the resolver refuses" }[answer] ?? answer;
}
