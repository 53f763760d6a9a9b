#pragma once
long sum(const long *first, const long *last);
