-- A fixed offered load far below what any of the proxies can carry: each of wrk's 64 connections
-- waits this long (milliseconds) between an answer and its next request, so about 10,000 a second.
function delay()
  return 6
end
