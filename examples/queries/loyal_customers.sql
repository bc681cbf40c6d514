-- Who are the most loyal customers, by orders, spending and frequency? A hundred of those with two orders or more.
-- Only paid orders count, whatever their state is now. An item whose order is gone has no customer: it is left out.
WITH bought AS (
    SELECT f."CustomerID" AS customer_id,
           count(DISTINCT f."OrderID") AS orders, sum(f."Revenue") AS spending,
           min(d."Date") AS first_order, max(d."Date") AS last_order
    FROM gold."FactSales" f
    JOIN gold."DimDate" d ON d."DateKey" = f."OrderDateKey"
    WHERE f."IsPaid"
    GROUP BY 1
)
SELECT b.customer_id, coalesce(c."CustomerName", '(unknown)') AS customer, orders, spending, first_order, last_order,
       round(1.0 * (CAST(last_order AS INT) - CAST(first_order AS INT)) / (orders - 1), 1) AS days_between_orders
FROM bought b
LEFT JOIN gold."DimCustomer" c ON c."CustomerID" = b.customer_id
WHERE orders >= 2
ORDER BY orders DESC, spending DESC, b.customer_id
LIMIT 100;
